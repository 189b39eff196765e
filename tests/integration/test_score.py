"""Bulk scoring: every image has one row, whatever it is and wherever it lies."""

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from dermaray.data import inputs
from dermaray.data.archive import Listing
from dermaray.data.storage import locate
from dermaray.errors import DataError, OutputError
from dermaray.models.artifact import open_artifact
from dermaray.models.bulk import Batch
from dermaray.models.predictor import Predictor
from dermaray.scoring import pipeline
from dermaray.scoring import run as scoring_run
from dermaray.scoring.ledger import Ledger
from jobs import score
from jobs.score import score_archive
from tests.object_store import Bucket, new_bucket
from tests.processor import need_bfloat16

RunJob = Callable[..., int]


def members(images: Path) -> dict[str, bytes]:
    """Good images of several kinds, and bad ones."""
    good = sorted(images.rglob("*.jpg"))[:40]
    png = io.BytesIO()
    Image.open(good[0]).save(png, "PNG")
    return {
        **{f"lesions/{path.name}": path.read_bytes() for path in good},
        "palette.png": png.getvalue(),
        "empty.jpg": b"",
        "page.jpg": b"<html>not found</html>",
        "cut.jpg": good[0].read_bytes()[:2000],
        "notes.txt": b"not an image by its name",
    }


def write_folder(target: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    return target


def write_zip(target: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(target.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return target.with_suffix(".zip")


def write_tar(target: Path, content: dict[str, bytes]) -> Path:
    path = target.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with new_bucket("scored") as made:
        yield made


def test_every_image_has_one_row(
    images: Path, model: Path, run_job: RunJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = members(images)
    # Of every kind of input, and of files far odder, test_hostile.py asks as much.
    source = write_zip(tmp_path / "archive", content)
    words = ("score", source, "--model", model, "--out", tmp_path / "scores", "--csv")
    assert run_job(*words, "--isic-submission", "--profile", "--actors", 2, "--top", 3) == 0
    rows = pq.read_table(tmp_path / "scores" / "scores.parquet").to_pylist()
    assert sorted(row["image_id"] for row in rows) == sorted(
        Path(name).stem for name in content if not name.endswith(".txt")
    )
    assert len({row["uri"] for row in rows}) == len(rows)
    reasons = {row["image_id"]: row["reason"] for row in rows if row["status"] == "dead_letter"}
    assert reasons == {"empty": "empty", "page": "not_an_image", "cut": "truncated"}
    for row in rows:
        scored = row["status"] == "scored"
        for name in ("label", "melanoma_probability", "alert", "refer", "prediction_set", "ood_score"):
            assert (row[name] is not None) == scored
        assert (row["message"] is None) == scored
    with (tmp_path / "scores" / "scores.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    with (tmp_path / "scores" / "submission.csv").open(newline="") as file:
        submitted = list(csv.DictReader(file))
    assert [row["image"] for row in submitted] == sorted(row["image_id"] for row in rows if row["status"] == "scored")
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["scored"] + sum(summary["dead_letters"].values()) == summary["images"] == len(rows)
    progress = json.loads((tmp_path / "scores" / "progress.json").read_text())
    assert progress["done"] == progress["images"] == summary["rate"]["images"] == len(rows)
    page = (tmp_path / "scores" / "top.html").read_text()
    highest = sorted((row["melanoma_probability"] or 0 for row in rows), reverse=True)[:3]
    assert [float(found) for found in re.findall(r"Melanoma ([\d.]+) %", page)] == [
        pytest.approx(100 * probability, abs=0.051) for probability in highest
    ]
    assert page.count("data:image/jpeg") == 6
    printed = capsys.readouterr().out
    for stage in ("reading", "decoding", "scoring"):
        assert 0 < summary["rate"]["stages"][stage] < 100
        assert stage in printed


REFUSED = {
    "without images": ({"notes.txt": b"text"}, None, "holds no image"),
    "cut short in an image": ({"a.jpg": os.urandom(50_000)}, 20_000, "none of the 1 images could be read"),
    "cut short at its start": ({"a.jpg": os.urandom(50_000)}, 60, "is a damaged archive"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_compressed_tar_that_gives_nothing_is_refused(
    kind: str, model: Path, run_job: RunJob, tmp_path: Path
) -> None:
    content, length, message = REFUSED[kind]
    source = write_tar(tmp_path / "archive", content)
    source.write_bytes(source.read_bytes()[:length])
    with pytest.raises(DataError, match=message):
        run_job("score", source, "--model", model, "--out", tmp_path / "scores")
    assert not (tmp_path / "scores" / "run.json").exists()
    assert not (tmp_path / "scores" / "_SUCCESS").exists()


def test_a_run_that_was_stopped_goes_on_to_the_same_rows(
    images: Path,
    model: Path,
    run_job: RunJob,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = members(images)
    archives = [write_tar(tmp_path / f"archive{number}", content) for number in range(4)]
    words = ["score", *archives, "--model", model, "--actors", 2, "--out"]
    run_job(*words, bucket.uri("undisturbed"))
    publish, published = Ledger.publish, []

    def publish_once(ledger: Ledger, shard: int, rows: pa.Table) -> None:
        if published:
            raise KeyboardInterrupt
        published.append(shard)
        publish(ledger, shard, rows)

    monkeypatch.setattr(Ledger, "publish", publish_once)
    with pytest.raises(KeyboardInterrupt):
        run_job(*words, tmp_path / "stopped")
    monkeypatch.undo()
    assert not (tmp_path / "stopped" / "_SUCCESS").exists()
    with pytest.raises(OutputError, match="a run that has not ended, of other inputs"):
        run_job("score", archives[0], "--model", model, "--actors", 2, "--out", tmp_path / "stopped")
    capsys.readouterr()
    run_job(*words, tmp_path / "stopped")
    assert "Going on: 1 of 4 shards are there" in capsys.readouterr().out
    filesystem, path = locate(bucket.uri("undisturbed/scores.parquet"))
    one = pq.read_table(path, filesystem=filesystem).drop_columns(["scored_at"])
    other = pq.read_table(tmp_path / "stopped" / "scores.parquet").drop_columns(["scored_at"])
    assert one.equals(other)
    assert one.num_rows == 4 * (len(content) - 1)
    # Again: there is nothing left to do.
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "stopped").rglob("*"))
    assert run_job(*words, tmp_path / "stopped") == 0
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "stopped").rglob("*"))


def test_scoring_begins_before_the_listing_ends(
    images: Path,
    model: Path,
    run_job: RunJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content, out = members(images), tmp_path / "scores"
    archives = [write_tar(tmp_path / f"archive{number}", content) for number in range(3)]
    words = ["score", *archives, "--model", model, "--actors", 2, "--out", out]
    listings, first = inputs.stream_inputs, out / "scores.parquet" / "part-00000.parquet"

    def slow(places: list[str]) -> Iterator[Listing]:
        listed = listings(places)
        yield next(listed)
        deadline = time.monotonic() + 120
        while not first.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        raise DataError("the share is gone")

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "stream_inputs", slow)
        patch.setattr(score, "_LISTING_SECONDS", 0.1)
        patch.setattr(scoring_run, "_ROUND_SECONDS", 0.1)
        with pytest.raises(DataError, match="the share is gone"):
            run_job(*words)
    assert first.exists()
    assert "inputs" not in json.loads((out / "run.json").read_text())
    capsys.readouterr()
    run_job(*words)
    assert "Going on: 1 of 3 shards are there" in capsys.readouterr().out
    assert "inputs" in json.loads((out / "run.json").read_text())
    rows = pq.read_table(out / "scores.parquet")
    assert rows.num_rows == json.loads((out / "summary.json").read_text())["images"] == 3 * (len(content) - 1)


@pytest.mark.parametrize("engine", ["litert", "keras"])
def test_an_image_that_kills_is_found_and_the_others_are_scored(
    engine: str, images: Path, model: Path, run_job: RunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mortal(pipeline._Read):
        """Stands for a decoder that some bytes crash."""

        def __call__(self, table: pa.Table) -> Iterator[Batch]:
            for batch in super().__call__(table):
                if (batch["image_id"] == "killer").any():
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

    monkeypatch.setattr(pipeline, "_Read", Mortal)
    image = next(images.rglob("*.jpg")).read_bytes()
    source = write_folder(tmp_path / "images", {"good.jpg": image, "killer.jpg": image})
    run_job("score", source, "--model", model, "--out", tmp_path / "scores", "--engine", engine, "--actors", 1)
    rows = pq.read_table(tmp_path / "scores" / "scores.parquet").to_pylist()
    assert [row["reason"] for row in rows] == [None, "crashed"]
    assert "3 processes died over it" in rows[1]["message"]


def test_an_object_that_never_comes_is_given_up(images: Path, model: Path, run_job: RunJob, tmp_path: Path) -> None:
    good = [str(path) for path in sorted(images.rglob("*.jpg"))[:3]]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        slow = f"s3://bucket/slow.jpg?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        (tmp_path / "list.txt").write_text("\n".join([good[0], slow, *good[1:]]))
        out = tmp_path / "scores"
        run_job("score", tmp_path / "list.txt", "--model", model, "--out", out, "--time-limit", 3, "--actors", 1)
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    assert [row["uri"] for row in rows] == [good[0], slow, *good[1:]]
    assert [row["reason"] for row in rows] == [None, "timed_out", None, None]


@pytest.mark.parametrize("engine", ["litert", "bfloat16"])
def test_the_engines_agree(engine: str, images: Path, model: Path, run_job: RunJob, tmp_path: Path) -> None:
    if engine == "bfloat16":
        need_bfloat16()
    artifact = open_artifact(model)
    source = write_folder(tmp_path / "images", {p.name: p.read_bytes() for p in sorted(images.rglob("*.jpg"))[:5]})
    # LiteRT is taken where nothing is asked for.
    asked = () if engine == "litert" else ("--engine", engine)
    run_job("score", source, "--model", model, "--out", tmp_path / "scores", *asked)
    rows = pq.read_table(tmp_path / "scores" / "scores.parquet").to_pylist()
    predictor = Predictor(artifact)
    found = np.array([[row[name] for name in artifact.label_set.classes] for row in rows])
    expected = np.array([[*predictor.predict(Path(row["uri"]).read_bytes()).probabilities.values()] for row in rows])
    np.testing.assert_allclose(found, expected, atol=0.01 if engine == "litert" else 0.05)
    # A row is nearest to its own image's answer.
    nearest = np.abs(found[:, None] - expected[None]).sum(axis=2).argmin(axis=1)
    assert nearest.tolist() == list(range(len(rows)))
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["rate"]["engine"] == engine


def test_scoring_is_a_step_of_a_pipeline_of_ones_own(images: Path, model: Path, tmp_path: Path) -> None:
    content = members(images)
    source = write_folder(tmp_path / "images", {name: data for name, data in content.items() if name != "notes.txt"})
    dataset = ray.data.read_binary_files(str(source), include_paths=True).map(lambda row: {**row, "patient": 7})
    rows = score_archive(dataset, model, actors=2).take_all()
    assert {Path(row["path"]).name: row["reason"] for row in rows} == {
        Path(name).name: {"empty.jpg": "empty", "page.jpg": "not_an_image", "cut.jpg": "truncated"}.get(name)
        for name in content
        if name != "notes.txt"
    }
    predictor = Predictor(open_artifact(model))
    for row in rows:
        assert (row["patient"], row["image_id"]) == (7, Path(row["path"]).stem)
        if row["status"] == "scored":
            expected = predictor.predict(Path(row["path"]).read_bytes())
            assert row["melanoma_probability"] == pytest.approx(expected.melanoma_probability, abs=0.01)
    with pytest.raises(ray.exceptions.RayTaskError, match="no column content of images' bytes"):
        score_archive(dataset, model, column="content", actors=1).take_all()


def test_a_model_that_changes_under_a_pipeline_ends_it(images: Path, model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    files = [str(path) for path in sorted(images.rglob("*.jpg"))[:2]]
    dataset = score_archive(ray.data.read_binary_files(files), copy, actors=1)
    (copy / "model.tflite").write_bytes(b"another")
    # Not the actor's constructor, which would be tried again first and then be told of as the death of an actor.
    with pytest.raises(ray.exceptions.RayTaskError, match=r"model\.tflite"):
        dataset.take_all()
