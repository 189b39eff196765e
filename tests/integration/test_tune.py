"""A search: its trials share what was decoded, the better ones go on, and what it writes can be trained."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dermaray.config import load_config
from dermaray.data.frames import node_folder
from dermaray.errors import OutputError

RunJob = Callable[..., int]


def frames() -> set[Path]:
    """Return what is decoded on this node: other tests leave theirs."""
    folder = node_folder()
    assert folder is not None
    return set(folder.iterdir()) if folder.exists() else set()


def test_a_search_ends_in_a_configuration(config: Path, run_job: RunJob, tmp_path: Path) -> None:
    search = {
        "name": "search",
        "out": str(tmp_path / "search"),
        "train": str(config),
        "fixed": {"training.epochs": 2},
        "search": {
            "training.learning_rate": {"log_uniform": [0.0001, 0.01]},
            "model.options.filters": {"choice": [[4, 4], [8, 8]]},
        },
        "trials": 2,
        "grace_epochs": 1,
    }
    path = tmp_path / "tune.yaml"
    path.write_text(yaml.safe_dump(search))
    before = frames()
    run_job("tune", "--config", path)
    out = tmp_path / "search"
    assert sorted(p.name for p in out.iterdir()) == [".dermaray", "best.yaml", "trials.csv", "trials.png"]
    with (out / "trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == 2
    # The first is the configuration as it is.
    assert (float(trials[0]["training.learning_rate"]), trials[0]["model.options.filters"]) == (0.001, "[8, 8]")
    assert {trial["epochs"] for trial in trials} <= {"1", "2"}
    best = min(trials, key=lambda trial: float(trial["best_val_loss"]))
    tuned = load_config(out / "best.yaml")
    assert tuned.training.learning_rate == float(best["training.learning_rate"])
    assert str(tuned.model.options["filters"]) == best["model.options.filters"]
    assert frames() == before
    assert not list(tmp_path.glob(".search*"))
    with pytest.raises(OutputError, match="--overwrite"):
        run_job("tune", "--config", path)
