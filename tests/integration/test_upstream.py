"""What upstream cannot do, and why `MultiWorkerModel` is there. When a test here fails, upstream has been mended."""

import json
import os
import subprocess
import sys

import pytest

from cluster.ports import free_port

MENDED = "Keras can do this by itself now: see what of dermaray/training/multiworker.py is still needed"

SCRIPT = """
import sys
import keras
import numpy as np
import tensorflow as tf
from dermaray.training.multiworker import MultiWorkerModel, own_part

strategy = tf.distribute.MultiWorkerMirroredStrategy()

kind = {"keras": keras.Model, "dermaray": MultiWorkerModel}[sys.argv[1]]
x, y = np.ones((8, 3), "float32"), np.zeros(8, "int32")
with strategy.scope():
    inputs = keras.Input((3,))
    model = kind(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"], jit_compile=False)
data = strategy.distribute_datasets_from_function(
    lambda _: tf.data.Dataset.from_tensor_slices((x, y)).batch(4).repeat()
)
if kind is MultiWorkerModel:
    data = own_part(data)
    assert isinstance(iter(data), tf.data.Iterator), "there is a second stream, to the devices"
model.fit(data, steps_per_epoch=2, epochs=1, verbose=0)
print("trained")
"""


@pytest.mark.parametrize(("kind", "works"), [("keras", False), ("dermaray", True)])
def test_keras_alone_cannot_fit_on_two_workers(kind: str, works: bool) -> None:
    ports = [free_port(), free_port()]
    processes = []
    for index in range(2):
        cluster = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster)}
        command = [sys.executable, "-c", SCRIPT, kind]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    trained = [out.strip().endswith("trained") for out, _ in outputs]
    assert trained == [works, works], MENDED if not works else outputs
