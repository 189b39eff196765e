"""A search's configuration: what is tried fits the training configuration, and what does not is named beforehand."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from dermaray.config import load_config
from dermaray.errors import ConfigError, OutputError
from dermaray.training.search import _combinations, load_search
from dermaray.training.state import RunState
from dermaray.training.store import STATE_FILE
from dermaray.training.trials import Trial, write_search
from dermaray.training.tuning import begin_search
from dermaray.training.unfinished import CHECKPOINTS

ROOT = Path(__file__).parents[2]
TRAIN = {"name": "base", "out": "runs/base", "data": {"manifest": "data"}, "training": {"epochs": 6}}
SEARCH = {
    "name": "search",
    "out": "runs/search",
    "train": "train.yaml",
    "fixed": {"training.epochs": 4},
    "search": {
        "training.learning_rate": {"log_uniform": [0.0001, 0.01]},
        "training.optimizer": {"choice": ["adam", "sgd"]},
        "model.options.filters": {"choice": [[8, 16], [32, 32, 64, 64]]},
        "training.warmup_steps": {"integer": [0, 100]},
    },
}


def written(folder: Path, **changes: Any) -> Path:
    (folder / "train.yaml").write_text(yaml.safe_dump(TRAIN))
    path = folder / "tune.yaml"
    path.write_text(yaml.safe_dump(SEARCH | changes, sort_keys=False))
    return path


def test_a_trial_is_the_configuration_with_other_values(tmp_path: Path) -> None:
    search = load_search(written(tmp_path))
    run = search.run_config({"training.learning_rate": 0.003, "model.options.filters": [8, 16]}, name="t1")
    assert (run.training.learning_rate, run.training.epochs, run.name) == (0.003, 4, "t1")
    assert run.model.options == {"filters": [8, 16]}
    assert run.training.optimizer == "adam"


def test_trials_are_of_one_model_each(tmp_path: Path) -> None:
    (start,) = load_search(written(tmp_path, fixed={"members": 2})).starts()
    assert (start.members, start.folds) == (None, None)


def test_a_fixed_key_leaves_its_section_alone(tmp_path: Path) -> None:
    search = load_search(written(tmp_path), ["fixed.data.balance=equal", "fixed.training.precision=float64"])
    assert (search.base.data.manifest, search.base.data.balance) == ("data", "equal")
    assert (search.base.training.epochs, search.base.training.precision) == (4, "float64")


def test_a_trial_finds_the_weights_that_are_named_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in a folder of its own."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "start.weights.h5").touch()
    monkeypatch.chdir(tmp_path / "here")
    search = load_search(written(tmp_path), ["fixed.model.weights=start.weights.h5"])
    monkeypatch.chdir(tmp_path / "there")
    assert search.run_config({}).model.weights == str(tmp_path / "here" / "start.weights.h5")
    assert search.run_config({"model.weights": "none"}).model.weights == "none"


def test_weights_may_be_varied_from_the_configurations_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.weights.h5").touch()
    ranges = {"model.weights": {"choice": ["start.weights.h5", "none"]}}
    search = load_search(written(tmp_path, search=ranges), ["fixed.model.weights=start.weights.h5"])
    assert search.first() == {"model.weights": "start.weights.h5"}


def test_the_best_trial_is_one_of_the_largest_images(tmp_path: Path) -> None:
    search = load_search(written(tmp_path, search={"model.dropout": {"uniform": [0.0, 0.5]}}))
    figures = {"loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.5}
    small = {"epoch": 1, "val_loss": 0.1, **figures, "scale": 0.5}
    trials = [Trial({"model.dropout": 0.1}, [small]), Trial({"model.dropout": 0.2}, [small, small | {"scale": 1.0}])]
    assert write_search(tmp_path, search, trials) is trials[1]


def test_how_long_the_best_would_train_is_known_also_where_only_fixed_keys_complete_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    incomplete = {**TRAIN, "data": {}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(incomplete))
    search = load_search(path, ["fixed.data.manifest=data"])
    assert (search.base.training.epochs, search.full_epochs) == (4, 6)
    # Eight epochs of the head fit a search's ten, and not the six that the configuration has.
    longer = load_search(path, ["fixed.data.manifest=data", "fixed.training.epochs=10", "fixed.training.head_epochs=8"])
    assert longer.full_epochs == 10


def test_a_range_is_changed_on_the_command_line(tmp_path: Path) -> None:
    changes = ["search.training.learning_rate={uniform: [0.01, 0.02]}", "search.model.dropout.uniform=[0, 0.5]"]
    ranges = load_search(written(tmp_path), changes).config.search
    assert ranges["training.learning_rate"].uniform == (0.01, 0.02)
    assert ranges["model.dropout"].uniform == (0, 0.5)
    assert set(ranges) == {*SEARCH["search"], "model.dropout"}


def test_the_first_trial_is_the_configuration_itself(tmp_path: Path) -> None:
    search = {
        "training.learning_rate": {"log_uniform": [0.0001, 0.01]},
        "training.optimizer": {"choice": ["sgd", "adam"]},
    }
    first = load_search(written(tmp_path, search=search)).first()
    assert first == {"training.learning_rate": 0.001, "training.optimizer": "adam"}
    search["training.learning_rate"] = {"log_uniform": [0.01, 0.1]}
    search["model.options.dropout"] = {"uniform": [0.0, 0.4]}
    other = load_search(written(tmp_path, search=search))
    assert other.first() is None
    assert other.outside() == ["training.learning_rate", "model.options.dropout"]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"training.learning_rat": {"uniform": [0, 1]}}, "search.training.learning_rat tries 0.* unknown key"),
        (
            {"training.optimizer": {"choice": ["adam", "lion"]}},
            "search.training.optimizer tries .lion..*'adamw' or 'sgd'",
        ),
        ({"model.dropout": {"uniform": [0.0, 1.5]}}, "search.model.dropout tries 1.5"),
        ({"model.dropout": {"uniform": [0.5, 0.1]}}, "first number must be below the second. Received: .0.5, 0.1"),
        ({"model.dropout": {"log_uniform": [0.0, 0.1]}}, "log_uniform takes numbers greater than 0"),
        ({"model.dropout": {}}, "one of uniform, log_uniform, integer, choice is needed. Received: none"),
        ({"model.dropout": {"uniform": [0, 1], "choice": [1]}}, "is needed. Received: uniform, choice"),
        ({"model.dropout": {"normal": [0, 1]}}, "unknown key 'search.model.dropout.normal'"),
        ({}, "search: "),
        ({"training.warmup_steps": {"uniform": [0, 100]}}, "search.training.warmup_steps tries 61.8.*integer"),
        ({"data.fold": {"choice": [0, 1]}}, "search.data.fold must be the same for all trials"),
        ({"data": {"choice": [{"manifest": "x"}]}}, "search.data must be the same for all trials"),
        ({"training.epochs": {"integer": [1, 9]}}, "search.training.epochs must be the same for all trials"),
        ({"scaling.num_workers": {"choice": [1, 2]}}, "search.scaling.num_workers must be the same"),
        ({"out": {"choice": ["a", "b"]}}, "search.out must be the same"),
        (
            {
                "training.loss": {"choice": ["cross_entropy", "focal"]},
                "training.label_smoothing": {"uniform": [0, 0.2]},
            },
            'no trial can have training.loss="focal", training.label_smoothing=',
        ),
    ],
)
def test_what_cannot_be_tried_is_named(search: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_search(written(tmp_path, search=search))


def test_what_is_written_can_be_trained(tmp_path: Path) -> None:
    search = load_search(written(tmp_path))
    values = [
        {
            "training.learning_rate": rate,
            "training.optimizer": "sgd",
            "model.options.filters": [8, 16],
            "training.warmup_steps": 3,
        }
        for rate in (0.001, 0.002, 0.004)
    ]
    figures = {"loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.5}
    trials = [
        Trial(value, [{"epoch": e, "val_loss": loss - 0.1 * e, **figures} for e in (1, 2)])
        for value, loss in zip(values, (1.0, 0.8, 0.9), strict=True)
    ]
    best = write_search(tmp_path, search, trials)
    assert best is trials[1]
    tuned = load_config(tmp_path / "best.yaml")
    assert tuned.training.learning_rate == 0.002
    assert (tuned.name, tuned.out, tuned.training.epochs) == ("base-tuned", "runs/base-tuned", 4)
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("trial,training.learning_rate,training.optimizer")
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_a_trial_that_failed_is_told_and_never_the_best(tmp_path: Path) -> None:
    search = load_search(written(tmp_path, search={"training.learning_rate": {"uniform": [0.1, 1]}}))
    history = [{"epoch": 1, "loss": 1.0, "accuracy": 0.5, "val_loss": 0.9, "val_accuracy": 0.5}]
    good = Trial({"training.learning_rate": 0.2}, history)
    diverged = Trial({"training.learning_rate": 0.9}, [history[0] | {"val_loss": 0.1}], "training diverged")
    at_once = Trial({"training.learning_rate": 1.0}, [], "training diverged at once")
    assert write_search(tmp_path, search, [at_once, diverged, good]) is good
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["problem"] for row in rows] == ["training diverged at once", "training diverged", ""]
    assert [row["best_val_loss"] for row in rows] == ["", "0.1", "0.9"]


def test_many_ranges_are_tried_in_part(tmp_path: Path) -> None:
    keys = ("training.learning_rate", "training.label_smoothing", "training.clip_norm", "model.dropout")
    ranges: dict[str, Any] = {key: {"uniform": [0.0001, 0.1]} for key in keys}
    ranges |= {"training.global_batch_size": {"choice": list(range(8, 48))}}
    search = load_search(written(tmp_path, search=ranges))
    assert len(list(_combinations(search.config.search))) == 1000


def test_the_search_that_is_shipped_is_valid() -> None:
    search = load_search(ROOT / "configs" / "tune.yaml")
    assert search.config.trials >= 12
    assert search.first() is not None


def test_a_training_run_of_the_same_output_is_left_alone(tmp_path: Path) -> None:
    search = load_search(written(tmp_path))
    kept = tmp_path / CHECKPOINTS / "attempt-0001" / "step-1"
    kept.mkdir(parents=True)
    begin_search(search, "d", tmp_path, new=False)
    kept.mkdir(parents=True)
    with (kept / STATE_FILE).open("wb") as file:
        RunState(1, [], [], [], [], []).write(file)
    with pytest.raises(OutputError, match="keeps a training run that has not ended"):
        begin_search(search, "d", tmp_path, new=False)
    assert kept.exists()
    begin_search(search, "d", tmp_path, new=True)
    assert not kept.exists()
