"""Keras's `fit` with what dermaray adds: a run taken apart and put together is the same run."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dermaray.config import TrainingConfig
from dermaray.training.compile import compile_stage
from dermaray.training.multiworker import MultiWorkerModel
from dermaray.training.normalization import normalize_together
from dermaray.training.stages import Stage
from dermaray.training.state import RunState

STEPS, ROWS = 6, 8


def model_of(**training: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    model = MultiWorkerModel(inputs, keras.layers.Dense(3, activation="softmax")(x))
    normalize_together(model)
    compile_stage(model, TrainingConfig(**training), Stage(0, STEPS, False, 0.01, 0, STEPS), jit_compile=False)
    return model


def batches(start: int = 0, begun: list[int] | None = None) -> tf.data.Dataset:
    def generate() -> Iterator[tuple[np.ndarray, ...]]:
        if begun is not None:
            begun.append(start)
        for step in range(start, 100):
            rng = np.random.default_rng(step)
            yield rng.normal(size=(ROWS, 4, 4, 3)).astype("f4"), rng.integers(0, 3, ROWS), np.ones(ROWS, "f4")

    signature = (
        tf.TensorSpec((ROWS, 4, 4, 3), tf.float32),
        tf.TensorSpec((ROWS,), tf.int64),
        tf.TensorSpec((ROWS,), tf.float32),
    )
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def test_a_run_that_was_interrupted_in_the_midst_of_an_epoch_is_the_same_run() -> None:
    settings = {"optimizer": "adamw", "schedule": "cosine", "warmup_steps": 2, "ema": 0.9, "clip_norm": 0.1}
    whole = model_of(**settings)
    history = whole.fit(batches(), steps_per_epoch=STEPS, verbose=0).history
    state = RunState()

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                state.capture(self.model)

    model_of(**settings).fit(batches(), steps_per_epoch=3, verbose=0, callbacks=[Stop()])
    # Another process: nothing is left of the one before.
    rest = model_of(**settings)
    keras.utils.set_random_seed(99)
    state.restore(rest, optimizer=True)

    class Resume(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            state.restore_metrics(self.model)

    resumed = rest.fit(batches(3), steps_per_epoch=3, verbose=0, callbacks=[Resume()]).history
    for a, b in zip(whole.variables, rest.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    assert resumed == history


def test_validation_goes_on_in_one_stream() -> None:
    begun: list[int] = []
    model = model_of()
    model.fit(batches(), steps_per_epoch=2, epochs=3, validation_data=batches(50, begun), validation_steps=4, verbose=0)
    assert begun == [50]
