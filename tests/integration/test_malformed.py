"""Files as they turn up in collections: none is lost, none stops the work, and each is judged as its kind deserves."""

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dermaray.data import inspect
from dermaray.data.manifest import Manifest
from dermaray.errors import DataError, ImageError, StoreError
from dermaray.images.decode import decode_image
from dermaray.images.spec import InputSpec
from jobs.cli import main
from tests.odd_files import NAMES, ODD, USABLE, Odd, jpeg, write_special_files

RunJob = Callable[..., int]

SPEC = InputSpec(height=32, width=32, scaled_decoding=False)


def test_there_are_enough_of_them() -> None:
    assert len(ODD) >= 60
    assert len({odd.kind for odd in ODD}) >= 20


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.kind)
def test_each_is_judged_as_its_kind_deserves(odd: Odd) -> None:
    if odd.reason == USABLE:
        assert decode_image(odd.data, SPEC).pixels.shape == SPEC.shape
    else:
        with pytest.raises(ImageError) as caught:
            decode_image(odd.data, SPEC)
        assert (caught.value.reason, len(str(caught.value)) > 10) == (odd.reason, True)


def write_source(source: Path, good: Path) -> dict[Path, Odd]:
    """Write some good images, and all the odd files among them; return what is to become of every file."""
    expected = {}
    for folder in sorted(path for path in good.iterdir() if path.is_dir()):
        (source / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:7]:
            expected[Path(shutil.copy(path, source / folder.name))] = Odd("good", ".jpg", b"")
    for number, odd in enumerate(ODD):
        # Pictures are of one class, so that a likeness among them is no contradiction.
        label = "nevus" if odd.reason == USABLE or number % 2 else "melanoma"
        path = source / label / f"{number:03} {odd.kind}{odd.suffix}"
        path.write_bytes(odd.data)
        expected[path] = odd
    for seed, (kind, name) in enumerate(NAMES.items()):
        path = source / "nevus" / name
        path.write_bytes(jpeg(80 + seed))
        expected[path] = Odd(kind, ".jpg", b"")
    return expected | write_special_files(source / "nevus")


def test_every_file_is_accounted_for_once(images: Path, run_job: RunJob, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "data"
    expected = {str(path): odd for path, odd in write_source(source, images).items()}
    link = str(source / "nevus" / "link.jpg")
    run_job("prepare", source, "--out", out)
    used = Manifest.read(out).table["uri"].to_pylist()
    with (out / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        aside = list(csv.DictReader(file))

    assert Counter(used + [row["uri"] for row in aside]) == Counter([*expected, link])
    # A link and its target are the same bytes; the first in order stays.
    target = str(source / "nevus" / "target.jpg")
    assert set(used) == {uri for uri, odd in expected.items() if odd.reason == USABLE} - {target} | {link}
    for row in aside:
        finding, begin = ("exact_duplicate", "SHA-256") if row["uri"] == target else ("unreadable", None)
        begin = begin or f"{expected[row['uri']].reason}: "
        assert row["finding"] == finding
        assert row["message"].startswith(begin)
        assert len(row["message"]) > len(begin) + 10
        assert row["label"] in ("melanoma", "nevus")

    summary = json.loads((out / "summary.json").read_text())
    assert summary["source_images"] == len(expected) + 1
    assert summary["usable_images"] == len(used)
    assert summary["quarantined"] == {"unreadable": len(aside) - 1, "exact_duplicate": 1}
    for finding in ("wrong_type", "unlike_dermoscopy"):
        assert reported(out, finding) == {uri for uri, odd in expected.items() if odd.remark == finding}


def reported(out: Path, finding: str) -> set[str]:
    """Return which images the audit reports under a finding."""
    audit = json.loads((out / "audit.json").read_text())
    (entry,) = (entry for entry in audit["findings"] if entry["finding"] == finding)
    return {image["uri"] for case in entry["cases"] for image in case["images"]}


def test_a_name_that_is_not_utf_8_is_named(images: Path, run_job: RunJob, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(images, source)
    (source / "nevus" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg(0))
    with pytest.raises(DataError, match=r"caf\\xe9\.jpg: the name is not valid UTF-8"):
        run_job("prepare", source, "--out", tmp_path / "data")


def test_an_outage_that_a_task_meets_is_one_line(
    ray_cluster: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(members: pa.Table) -> pa.Table:
        raise StoreError("s3://a: the object store cannot be reached")

    def run(_: object) -> int:
        return len(list(inspect._mapped(["image.png"], away, lambda _: None)))

    monkeypatch.setattr("jobs.runs.run", run)
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == "dermaray runs: s3://a: the object store cannot be reached\n"


def test_a_process_that_dies_again_and_again_ends_the_job(
    ray_cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deaths = tmp_path / "deaths"

    def die(members: pa.Table) -> pa.Table:
        with deaths.open("a") as file:
            file.write("x")
        os._exit(1)

    def run(_: object) -> int:
        return len(list(inspect._mapped(["image.png"], die, lambda _: None)))

    monkeypatch.setattr(inspect, "RETRIES", 1)
    monkeypatch.setattr("jobs.runs.run", run)
    assert main(["runs"]) == 2
    assert deaths.read_text() == "xx"
    assert capsys.readouterr().err.startswith("dermaray runs: a process of Ray's is lost, of an image or for want of")
