"""Folds and ensembles: several models as one, with decisions of its own, wherever models are used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.compute as pc
import pytest

import jobs.training
from dermaray.config import load_config
from dermaray.data.folds import folds_of_training
from dermaray.data.manifest import Manifest
from dermaray.errors import ConfigError, DataError, LeakError, OutputError
from dermaray.models.artifact import open_artifact
from dermaray.models.predictor import Predictor
from dermaray.models.rounding import _int8
from jobs.training import _is_done, _runs

RunJob = Callable[..., int]
FOLDED = ("folds=2", "views=4", "version=2", "int8=true", "weights_as=int8")


@pytest.fixture(scope="module")
def folded(config: Path, run_job: RunJob) -> Path:
    out = config.parent / "folded"
    run_job("train", "--config", config, f"out={out}", *FOLDED)
    return out


def test_folds_become_one_model(folded: Path, manifest: Path) -> None:
    artifact = open_artifact(folded)
    assert (artifact.name, artifact.version) == ("tiny", "2")
    rows = Manifest.read(manifest)
    trained_on = set(artifact.trained_on()["sha256"].to_pylist())
    assert trained_on == set(rows.rows("train")["sha256"].to_pylist())
    assert set(artifact.decided_on()["sha256"].to_pylist()) == set(rows.rows("val")["sha256"].to_pylist())
    members = [open_artifact(folded.parent / f"folded-fold-{i}") for i in range(2)]
    for member in members:
        own = member.trained_on()["sha256"]
        assert not pc.any(pc.is_in(own, value_set=member.decided_on()["sha256"].combine_chunks())).as_py()
    kernels = [weights for weights in artifact.load_model().get_weights() if weights.ndim > 1]
    assert all(np.array_equal(kernel, _int8(kernel)) for kernel in kernels)
    told = [member["digest"] for member in artifact.provenance["members"]]
    assert told == [member.digest for member in members]
    assert [(one.path / "model.int8.tflite").exists() for one in (artifact, *members)] == [True, False, False]
    card = (folded / "model" / "MODEL_CARD.md").read_text()
    assert "case_study_cnn, starting from weights: none; case_study_cnn" in card
    image = Path(rows.rows("test")["uri"][0].as_py()).read_bytes()
    prediction = Predictor(artifact).predict(image)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_folds_that_are_there_are_not_trained_again(
    folded: Path, config: Path, run_job: RunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "--config", config, f"out={folded}", *FOLDED]
    with pytest.raises(OutputError, match="folded"):
        run_job(*words)
    # As a run leaves it that was killed between the last fold and the model of all.
    folded.rename(tmp_path / "kept")
    monkeypatch.setattr(jobs.training, "_train", Mock(side_effect=AssertionError("trained again")))
    combine = Mock(side_effect=lambda out, *_, **__: shutil.copytree(tmp_path / "kept" / "model", out))
    monkeypatch.setattr(jobs.training, "write_ensemble", combine)
    run_job(*words)
    combine.assert_called_once()
    shutil.rmtree(folded)
    # Where all begins anew, what the folds had come to is replaced.
    again = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(jobs.training, "train_one", again)
    with pytest.raises(KeyboardInterrupt):
        run_job(*words, "--new")
    assert again.call_args.args[-1].overwrite
    (tmp_path / "kept").rename(folded)


def test_one_model_with_other_decisions(model: Path, manifest: Path, run_job: RunJob, tmp_path: Path) -> None:
    changes = ["decisions.alert_sensitivity=0.6", "decisions.alert_confidence=0.8", "name=bold"]
    run_job("ensemble", "--models", model, "--data", manifest, "--out", tmp_path / "bold", *changes)
    bold, before = open_artifact(tmp_path / "bold"), open_artifact(model)
    assert bold.decisions.alert is not None
    assert before.decisions.alert is not None
    assert bold.decisions.alert.guaranteed == 0.6 > before.decisions.alert.guaranteed
    assert bold.digest != before.digest
    described = json.loads((tmp_path / "bold" / "model" / "artifact.json").read_text())
    assert described["decisions"]["facts"]["asked_for"]["alert_sensitivity"] == 0.6


def test_models_that_do_not_fit_are_refused(
    model: Path, config: Path, manifest: Path, folded: Path, run_job: RunJob, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"views=8 turns images .*Received: 32x48"):
        run_job("ensemble", "--models", model, "--data", manifest, "--out", tmp_path / "x", "views=8")
    # What one member validated on, another was trained on.
    part = folds_of_training(Manifest.read(manifest), 2, seed=7)[0]
    part.write(tmp_path / "part.parquet")
    with pytest.raises(LeakError, match="were trained on"):
        run_job("ensemble", "--models", folded, "--data", tmp_path / "part.parquet", "--out", tmp_path / "x")


def test_a_fold_counts_as_done_while_nothing_that_touches_its_weights_changes(
    folded: Path, config: Path, manifest: Path
) -> None:
    changes = {"checkpoint.every_seconds=7": True, "training.learning_rate=0.5": False, "weights_as=float16": True}
    for change, done in changes.items():
        runs, parts = _runs(load_config(config, [f"out={folded}", *FOLDED, change]), Manifest.read(manifest))
        assert _is_done(runs[0], parts[0]) == done


def test_members_are_trained_one_by_one(
    config: Path, run_job: RunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_one = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(jobs.training, "train_one", train_one)
    with pytest.raises(KeyboardInterrupt):
        run_job("train", "--config", config, f"out={tmp_path / 'pair'}", "members=2")
    (run, _, *_), _ = train_one.call_args
    assert run.out == f"{tmp_path / 'pair'}-member-0"


def test_members_differ_in_their_seed_alone(config: Path, manifest: Path) -> None:
    whole = load_config(config, ["out=runs/pair", "seed=5", "members=2", "views=2", "weights_as=int8"])
    runs, parts = _runs(whole, Manifest.read(manifest))
    assert [(run.seed, run.name, run.out) for run in runs] == [
        (5, "tiny-member-0", "runs/pair-member-0"),
        (6, "tiny-member-1", "runs/pair-member-1"),
    ]
    assert {part.digest for part in parts} == {Manifest.read(manifest).digest}
    alone = {"name": "x", "out": "x", "seed": 0}
    assert runs[0].model_copy(update=alone) == runs[1].model_copy(update=alone)
    assert (runs[0].members, runs[0].views, runs[0].weights_as) == (None, 1, "float32")


def test_another_picture_in_the_place_of_a_validation_image_is_refused(
    model: Path, manifest: Path, run_job: RunJob, tmp_path: Path
) -> None:
    image = Path(Manifest.read(manifest).rows("val")["uri"][0].as_py())
    kept = image.read_bytes()
    image.write_bytes(kept + b"\0")
    try:
        with pytest.raises(DataError, match=rf"{image} was usable when it was prepared, now it holds other bytes"):
            run_job("ensemble", "--models", model, "--data", manifest, "--out", tmp_path / "x")
    finally:
        image.write_bytes(kept)
    assert not (tmp_path / "x").exists()


def test_what_could_not_be_converted_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Mock(provenance={"unconverted": {"model.tflite": "no such operation"}})
    monkeypatch.setattr(jobs.training, "open_artifact", lambda _: made)
    jobs.training.say_model(Path("model"))
    assert capsys.readouterr().out == (
        "Model: model\nIt has no model.tflite, since the network cannot be converted: no such operation\n"
    )
