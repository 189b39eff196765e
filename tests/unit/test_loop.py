"""A training worker's loop, on images drawn here: where it ends before its last epoch, and what it says then."""

from collections.abc import Iterator
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
from dermaray.training import loop
from dermaray.training.feed import Batch, Feed
from dermaray.training.plan import Plan
from dermaray.training.state import RunState
from dermaray.training.task import WorkerTask, plan_run

CLASSES = ("nevus", "melanoma")


class Drawn(Feed):
    """Feeds images of one grey each, lighter for the second class."""

    def _blocks(self, plan: Plan, images: ImageTable, recipe: Recipe) -> Iterator[Batch]:
        labels = images.labels[plan.row]
        greys = np.uint8(60) + np.uint8(90) * labels.astype(np.uint8) + plan.row.astype(np.uint8)
        yield np.broadcast_to(greys[:, None, None, None], (len(labels), 16, 16, 3)).copy(), labels, plan.weight


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave checkpoints out: they are handed to Ray."""
    monkeypatch.setattr(loop, "Checkpoints", lambda *_: keras.callbacks.Callback())


def task_of(**training: Any) -> WorkerTask:
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
            "model": {"options": {"filters": [4], "dense": 32}},
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
