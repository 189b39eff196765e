"""Archives of whatever turns up: each file has its row with its own reason, and nothing is written but the result."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from tests.odd_files import NAMES, ODD, USABLE, jpeg, write_special_files

RunJob = Callable[..., int]
Expected = dict[str, str]
"""What becomes of each file, by its name in the input: a reason, or `USABLE`."""

BOMB = bytes(100 * 1024 * 1024)
CLIMBING = ("../../climbed.jpg", "/climbed.jpg", "a/../../climbed.jpg", "a\\..\\climbed.jpg")


def contents() -> dict[str, tuple[bytes, str]]:
    """Return the files that any input can hold, with what becomes of them."""
    files = {f"odd/{number:03} {odd.kind}{odd.suffix}": (odd.data, odd.reason) for number, odd in enumerate(ODD)}
    return files | {f"names/{name}": (jpeg(80 + seed), USABLE) for seed, name in enumerate(NAMES.values())}


def hostile_folder(place: Path) -> Expected:
    expected = {}
    for name, (data, reason) in contents().items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
        expected[name] = reason
    (place / "special").mkdir()
    special = {str(path.relative_to(place)): odd.reason for path, odd in write_special_files(place / "special").items()}
    (place / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg(0))
    (place / "itself.jpg").symlink_to("itself.jpg")
    # A folder that leads out of the input is not gone into.
    (place / "up").symlink_to(place.parent)
    others = {"special/link.jpg": USABLE, "caf\\xe9.jpg": USABLE, "itself.jpg": "unreadable", "up": "unreadable"}
    return expected | special | others


def hostile_zip(place: Path) -> Expected:
    everything = contents() | {name: (jpeg(81), USABLE) for name in CLIMBING}
    everything |= {"bomb.jpg": (BOMB, "too_large"), "encrypted.jpg": (jpeg(82), "unreadable")}
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, _) in everything.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        offset = archive.getinfo("encrypted.jpg").header_offset
        archive.writestr("nested.zip", place.read_bytes())
    with place.open("r+b") as file:
        file.seek(offset + 6)
        file.write(b"\1")
    return {name: reason for name, (_, reason) in everything.items()}


def hostile_tar(place: Path, mode: str = "w") -> Expected:
    everything = contents() | {name: (jpeg(81), USABLE) for name in CLIMBING} | {"bomb.jpg": (BOMB, "too_large")}
    with tarfile.open(place, mode) as archive:  # type: ignore[call-overload]
        for name, (data, _) in everything.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        special = {
            "symbolic.jpg": (tarfile.SYMTYPE, "/etc/passwd"),
            "hard.jpg": (tarfile.LNKTYPE, "/etc/passwd"),
            "pipe.jpg": (tarfile.FIFOTYPE, ""),
            "device.jpg": (tarfile.CHRTYPE, ""),
            "second name.jpg": (tarfile.LNKTYPE, CLIMBING[0]),
        }
        for name, (kind, target) in special.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    becomes = {name: reason for name, (_, reason) in everything.items()} | dict.fromkeys(special, "unreadable")
    return becomes | {"second name.jpg": USABLE if mode == "w" else "unreadable"}


KINDS: dict[str, Callable[[Path], Expected]] = {
    "folder": hostile_folder,
    "input.zip": hostile_zip,
    "input.tar": hostile_tar,
    "input.tar.gz": lambda place: hostile_tar(place, "w:gz"),
}


def test_every_file_has_its_row(model: Path, run_job: RunJob, tmp_path: Path) -> None:
    here, out, expected = tmp_path / "here", tmp_path / "scores", {}
    here.mkdir()
    for kind, make in KINDS.items():
        becomes = make(here / kind)
        assert len(becomes) >= 114
        begin = f"{here / kind}/" if kind == "folder" else f"{here / kind}::"
        expected |= {f"{begin}{name}": reason for name, reason in becomes.items()}
    run_job("score", *(here / kind for kind in KINDS), "--model", model, "--out", out, "--actors", 2)
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    assert {row["uri"]: row["reason"] or USABLE for row in rows} == expected
    assert len(rows) == len(expected)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["scored"] + sum(summary["dead_letters"].values()) == summary["images"] == len(expected)
    assert {path.name for path in tmp_path.iterdir()} == {"here", "scores"}
    assert {path.name for path in here.iterdir()} == set(KINDS)
