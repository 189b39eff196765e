"""A search: its trials share what was decoded, the better ones go on, and what it writes can be trained."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import tune

from dermaray.config import load_config
from dermaray.data.frames import node_folder
from dermaray.errors import OutputError
from dermaray.training.search import load_search
from dermaray.training.tuning import begun_trials, fit_trials, note_begun
from dermaray.training.unfinished import TRIALS
from tests.commands import wait_until

RunJob = Callable[..., int]


def frames() -> set[Path]:
    """Return what is decoded on this node: other tests leave theirs."""
    folder = node_folder()
    assert folder is not None
    return set(folder.iterdir()) if folder.exists() else set()


@pytest.fixture
def search(config: Path, tmp_path: Path) -> Path:
    """A search of two trials."""
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
    return path


def test_a_search_goes_on_with_what_failed_by_what_others_had_come_to(
    search: Path, ray_cluster: object, tmp_path: Path
) -> None:
    """Trials that train nothing; the second fails when it is first run."""
    folder, mended = tmp_path / "kept", tmp_path / "mended"
    # As a search leaves it that is killed in its first moment.
    (folder / TRIALS).mkdir(parents=True)
    (folder / TRIALS / "tuner.pkl").touch()

    def trial(values: dict[str, Any]) -> None:
        name = tune.get_context().get_trial_id()
        note_begun(folder, name)
        number = begun_trials(folder).index(name)
        for epoch in (1, 2, 3):
            figures = dict.fromkeys(("loss", "accuracy", "val_accuracy"), 0.5)
            tune.report({"epoch": epoch, "val_loss": (1.0, 0.5, 0.1, 0.2)[number], **figures})
            if number == 1 and not mended.exists():
                raise OSError("no space left")

    settings = load_search(search, ["trials=4", "fixed.training.epochs=3"])
    first = fit_trials(settings, folder, trial)
    assert [result.error is None for result in first] == [True, False, True, True]
    mended.touch()
    again = fit_trials(settings, folder, trial)
    assert [Path(result.path).name for result in again] == [Path(r.path).name for r in first] == begun_trials(folder)
    assert [result.error for result in again] == [None] * 4
    # After its first epoch the second trial is known to be worse than the two that came after it.
    assert [int(result.metrics["epoch"]) for result in again] == [3, 1, 3, 3]


def test_a_search_that_was_killed_goes_on_by_the_same_command_and_ends_in_a_configuration(
    search: Path, run_job: RunJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = frames()
    process = subprocess.Popen([sys.executable, "-m", "jobs.tune", "--config", str(search)], start_new_session=True)
    # Until the first trial has kept an epoch.
    try:
        wait_until(lambda: list(tmp_path.glob(".search.unfinished/runs/*/checkpoints/*/*/state.npz")), process)
    finally:
        process.kill()
        process.wait()
    # What it was to write is not there, and it is no run.
    out = tmp_path / "search"
    assert not out.exists()
    run_job("runs", tmp_path)
    assert "No runs below" in capsys.readouterr().out
    run_job("tune", "--config", search)
    began, *_, best, how = capsys.readouterr().out.splitlines()
    assert began.startswith("Going on with a search of which 1 of 2 trials have begun")
    assert best.startswith("2 trials. Best: validation loss")
    # As long as the configuration that the search started from.
    assert how == f"To train it: dermaray train --config {out / 'best.yaml'} training.epochs=1"
    assert sorted(p.name for p in out.iterdir()) == [".dermaray", "best.yaml", "trials.csv", "trials.png"]
    with (out / "trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == 2
    assert all(trial["best_val_loss"] and not trial["problem"] for trial in trials)
    # One of them is the configuration as it is.
    tried = {(float(trial["training.learning_rate"]), trial["model.options.filters"]) for trial in trials}
    assert (0.001, "[8, 8]") in tried
    assert {trial["epochs"] for trial in trials} <= {"1", "2"}
    lowest = min(trials, key=lambda trial: float(trial["best_val_loss"]))
    tuned = load_config(out / "best.yaml")
    assert tuned.training.learning_rate == float(lowest["training.learning_rate"])
    assert str(tuned.model.options["filters"]) == lowest["model.options.filters"]
    assert frames() == before
    assert not list(tmp_path.glob(".search*"))
    with pytest.raises(OutputError, match="--overwrite"):
        run_job("tune", "--config", search)
