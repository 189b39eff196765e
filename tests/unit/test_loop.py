"""A training worker's loop, on images drawn here: where it ends before its last epoch, and what it says then."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest

from dermaray.config import RunConfig
from dermaray.data.manifest import SCHEMA, Manifest
from dermaray.data.streams import ImageTable, Recipe
from dermaray.errors import TrainingError
from dermaray.labels import LabelSet
from dermaray.models import backbones
from dermaray.models.classifier import build_classifier
from dermaray.training import loop
from dermaray.training.callbacks import Record
from dermaray.training.feed import Batch, Feed
from dermaray.training.plan import Plan
from dermaray.training.state import RunState
from dermaray.training.task import WorkerTask, plan_run

CLASSES = ("nevus", "melanoma")
OPTIONS: dict[str, dict[str, Any]] = {"case_study_cnn": {"filters": [4], "dense": 32}, "pooled": {}}


class Drawn(Feed):
    """Feeds images of one grey each, lighter for the second class."""

    def _blocks(self, plan: Plan, images: ImageTable, recipe: Recipe) -> Iterator[Batch]:
        labels = images.labels[plan.row]
        greys = np.uint8(60) + np.uint8(90) * labels.astype(np.uint8) + plan.row.astype(np.uint8)
        yield np.broadcast_to(greys[:, None, None, None], (len(labels), 16, 16, 3)).copy(), labels, plan.weight


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave checkpoints out, which are handed to Ray, but for what is captured for them."""

    class Captured(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self, state: RunState, *_: object) -> None:
            super().__init__()
            self._state = state

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self._state.capture(self.model)

    monkeypatch.setattr(loop, "Checkpoints", Captured)


def task_of(backbone: str = "case_study_cnn", **training: Any) -> WorkerTask:
    filled: dict[str, Any] = {"uri": "a.jpg", "group_id": "g", "sha256": "0" * 64, "width": 16, "height": 16}
    rows = [
        {**filled, "image_id": f"i{i}", "label": CLASSES[i % 2], "split": split}
        for i, split in enumerate(["train"] * 12 + ["val"] * 6)
    ]
    config = RunConfig.model_validate(
        {
            "name": "t",
            "out": "t",
            "data": {"manifest": "m"},
            "input": {"height": 16, "width": 16},
            "model": {"backbone": backbone, "options": OPTIONS[backbone]},
            "training": {"global_batch_size": 4, "optimizer": "sgd", **training},
        }
    )
    manifest = Manifest(pa.Table.from_pylist(rows, SCHEMA), LabelSet("two", CLASSES, frozenset(), None))
    return plan_run(config, manifest, 1.0)


def trained(task: WorkerTask) -> RunState:
    state = RunState()
    loop.train_worker(Drawn(task, rank=0, world_size=1), state, None)
    return state


def test_a_run_has_its_epochs() -> None:
    state = trained(task_of(epochs=4, learning_rate=0.1))
    assert [figures["epoch"] for figures in state.history] == [1, 2, 3, 4]
    assert state.step == 4 * 3
    assert state.history[-1]["val_loss"] < state.history[0]["val_loss"]


def test_a_run_ends_early_where_nothing_improves() -> None:
    # At this rate nothing moves, so no epoch after the first is better.
    state = trained(task_of(epochs=9, learning_rate=1e-30, early_stopping=2))
    assert len(state.history) == 3
    assert state.best_epoch["epoch"] == 1


def test_a_loss_that_is_no_number_names_its_images() -> None:
    task = task_of(epochs=4, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in step \d+ of epoch 1, whose images") as caught:
        trained(task)
    named = str(caught.value).partition(" are ")[2].partition(". Try a lower training.learning_rate than 1e+30")[0]
    assert len(named.split(", ")) == task.config.training.global_batch_size
    assert set(named.split(", ")) <= set(task.train.image_ids.to_pylist())


def pooled(pixels: Any) -> Any:
    """A backbone whose weights fit images of any size."""
    values = keras.layers.Conv2D(4, 3, strides=2)(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.layers.GlobalAveragePooling2D()(values)


def test_small_images_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(pixels: Any) -> Any:
        seen.append(pixels.shape)
        return pooled(pixels)

    monkeypatch.setitem(backbones.BACKBONES, "pooled", backbones.Backbone(watched))
    training = {"epochs": 4, "small_epochs": 2, "small_scale": 0.5, "optimizer": "adam", "schedule": "cosine"}
    state = trained(task_of("pooled", **training))
    assert seen == [(None, 8, 8, 3), (None, 16, 16, 3)]
    assert [figures["scale"] for figures in state.history] == [0.5, 0.5, 1.0, 1.0]
    assert state.step == 4 * 3
    # Its count of steps, which the learning rate follows, went on with it.
    assert state.optimizer[0] == 4 * 3


def test_a_network_for_other_images_has_the_weights_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.BACKBONES, "pooled", backbones.Backbone(pooled))
    # At this rate nothing moves.
    task = task_of("pooled", epochs=2, small_epochs=1, small_scale=0.5, learning_rate=1e-30)
    state = trained(task)
    keras.utils.set_random_seed(task.config.seed)
    first = build_classifier(task.config.model, task.config.input.scaled(0.5), len(CLASSES))
    for value, expected in zip(state.best, first.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-20)


def test_the_first_epoch_on_images_of_full_size_is_better_than_those_before() -> None:
    task = task_of("pooled", epochs=4, small_epochs=2, small_scale=0.5)
    state = RunState(history=[{"epoch": float(epoch), "val_loss": 0.1, "scale": 0.5} for epoch in (1, 2)])
    record = Record(state, task, 0, 1, None)
    record.set_model(SimpleNamespace(get_weights=lambda: ["weights"]))
    record.on_test_end({"loss": 0.9})
    assert state.best == ["weights"]


def test_the_best_epoch_is_one_on_images_of_full_size() -> None:
    history = [{"epoch": 1, "val_loss": 0.1, "scale": 0.5}, {"epoch": 2, "val_loss": 0.3, "scale": 1.0}]
    state = RunState(history=[*history, {"epoch": 3, "val_loss": 0.2, "scale": 1.0}])
    assert state.best_epoch["epoch"] == 3
