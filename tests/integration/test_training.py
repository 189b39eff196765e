"""Training: what is written is complete, what cannot be is refused at once.

That many workers end where one does is shown in `test_resume.py`, where one of them is killed besides.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dermaray.config import load_config
from dermaray.data.manifest import Manifest
from dermaray.errors import ConfigError, OutputError, ResourceError
from dermaray.models.artifact import open_artifact
from tests.event_files import shown

RunJob = Callable[..., int]


def weights_of(run: Path) -> list[np.ndarray]:
    return [np.asarray(w) for w in open_artifact(run).load_model().get_weights()]


def history_of(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_training_moves_the_weights(model: Path, config: Path) -> None:
    """Guard the comparisons of `test_resume.py`: they would hold just as well if nothing were trained."""
    import keras

    from dermaray.models.classifier import build_classifier

    resolved = load_config(config)
    keras.utils.set_random_seed(resolved.seed)
    initial = build_classifier(resolved.model, resolved.input, 9).get_weights()[0]
    trained = weights_of(model)[0]
    assert np.abs(initial - trained).max() > 0.001 * np.abs(trained).max()


def test_a_run_is_complete(model: Path, config: Path, manifest: Path) -> None:
    run = model.parent
    assert sorted(path.name for path in run.iterdir()) == [
        ".dermaray",
        "config.yaml",
        "history.csv",
        "model",
        "tensorboard",
    ]
    assert sorted(path.name for path in model.iterdir()) == [
        "MODEL_CARD.md",
        "artifact.json",
        "decided_on.parquet",
        "model.keras",
        "model.tflite",
        "model_card.html",
        "novelty.npz",
        "trained_on.parquet",
    ]
    seen = open_artifact(model)
    for split, images in (("train", seen.trained_on()), ("val", seen.decided_on())):
        assert set(images["sha256"].to_pylist()) == set(Manifest.read(manifest).rows(split)["sha256"].to_pylist())
    resolved = load_config(run / "config.yaml")
    assert (resolved.training.epochs, resolved.out) == (1, str(run))
    assert len(history_of(run)) == 1
    ((_, loss),) = shown(run / "tensorboard", "epoch/val_loss")
    assert loss == pytest.approx(history_of(run)[0]["val_loss"])
    provenance = json.loads((model / "artifact.json").read_text())["provenance"]
    assert provenance["data"]["digest"] == Manifest.read(manifest).digest
    assert not [*run.parent.glob(".*partial*"), *run.parent.glob(".*unfinished*")]


REFUSED = {
    "more workers than CPUs": (["scaling.num_workers=12", "training.partial_sums=12"], ResourceError, "8 CPUs"),
    "GPUs that are not there": (["scaling.use_gpu=true", "training.partial_sums=null"], ResourceError, "there are 0"),
    "all the CPUs": (["scaling.num_workers=2", "scaling.cpus_per_worker=4"], ResourceError, "less than one"),
    "a batch larger than the data": (["training.global_batch_size=600"], ConfigError, "at most"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_run_is_refused_at_once(mistake: str, config: Path, run_job: RunJob) -> None:
    overrides, error, message = REFUSED[mistake]
    out = config.parent / "refused"
    with pytest.raises(error, match=message):
        run_job("train", "--config", config, f"out={out}", *overrides)
    assert not out.exists()


def test_an_earlier_run_is_not_overwritten_unasked(model: Path, config: Path, run_job: RunJob) -> None:
    with pytest.raises(OutputError, match="--overwrite"):
        run_job("train", "--config", config, f"out={model.parent}")
