"""What upstream cannot do, and what of ours is there for that. When a test here fails, upstream has been mended."""

import json
import os
import subprocess
import sys

import pytest
from ray.train.v2._internal.state import util

from cluster.ports import free_port

MENDED = (
    "Keras can do this by itself now: see what of multiworker.py and normalization.py in dermaray/training is needed"
)

SCRIPT = """
import keras
import numpy as np
import tensorflow as tf
from dermaray.training.multiworker import MultiWorkerModel, own_part

strategy = tf.distribute.MultiWorkerMirroredStrategy()
x, y = np.ones((8, 3), "float32"), np.zeros(8, "int32")

def fit(kind):
    with strategy.scope():
        inputs = keras.Input((3,))
        model = kind(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
        loss = keras.losses.SparseCategoricalCrossentropy()
        model.compile("sgd", loss, weighted_metrics=["accuracy"], jit_compile=False)
    data = strategy.distribute_datasets_from_function(
        lambda _: tf.data.Dataset.from_tensor_slices((x, y)).batch(4).repeat()
    )
    if kind is MultiWorkerModel:
        data = own_part(data)
        assert isinstance(iter(data), tf.data.Iterator), "there is a second stream, to the devices"
    model.fit(data, steps_per_epoch=2, epochs=1, verbose=0)

try:
    fit(keras.Model)
    print("Keras alone")
except ValueError as error:
    assert "PerReplica" in str(error), error
fit(MultiWorkerModel)
print("Keras with what is ours")
"""


def test_keras_alone_cannot_fit_on_two_workers() -> None:
    ports = [free_port(), free_port()]
    processes = []
    for index in range(2):
        cluster = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster)}
        command = [sys.executable, "-c", SCRIPT]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for trained, complained in outputs:
        assert "Keras alone" not in trained, MENDED
        assert trained.strip() == "Keras with what is ours", complained


REPLICAS = """
import json
import keras
import numpy as np
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    weights = keras.Variable([0.0, 0.0])
    optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1.0)
    optimizer.build([weights])
    normalization = keras.layers.BatchNormalization(synchronized=True, momentum=0.0)
    normalization.build((None, 1))
pixels = np.random.default_rng(0).normal(1e4, 1, (512, 1)).astype("float32")

def step():
    first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
    optimizer.apply([tf.where(first, [3.0, 0.0], [0.0, 4.0])])
    normalization(pixels, training=True)

tf.function(lambda: strategy.run(step))()
print(json.dumps([np.asarray(weights).tolist(), float(normalization.moving_variance[0])]))
"""


def test_keras_alone_clips_before_it_sums_and_loses_the_variance() -> None:
    result = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True, check=True)
    weights, variance = json.loads(result.stdout.splitlines()[-1])
    # Each replica's gradient cut to 1; of their sum, [3, 4], it would be [-0.6, -0.8].
    assert weights == pytest.approx([-1, -1]), f"see summing_first. {MENDED}"
    # Of values that differ by 1 about a mean of 10,000.
    assert abs(variance - 1) > 0.5, f"see normalize_together. {MENDED}"


def test_ray_train_asks_whichever_ray_it_finds_for_its_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(util, "get_actor", lambda _, **options: asked.update(options))
    util.is_actor_alive("a controller", timeout=1)
    assert asked
    assert "address" not in asked, "see what Trainer leaves out: Ray Train's cleaner asks its own Ray now"
