"""Archives of a few small images, for tests that read them."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from dermaray.data.archive import list_members
from dermaray.data.members import Member, read_members


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {"a.png": png(0), "nested/b.PNG": png(1), "nested/deeper/c.png": png(2)}
OTHERS = {"notes.txt": b"text", "nested/table.csv": b"a,b", "README": b"text", "nested/more.txt": b"text"}


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.mkdir("nested")
        for name, data in files.items():
            file.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], compression: str = "") -> Path:
    with tarfile.open(path, f"w:{compression}") as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def make_tar_gz(path: Path, files: dict[str, bytes]) -> Path:
    return make_tar(path, files, "gz")


def read(source: Path) -> list[Member]:
    return list(read_members(list_members(source).members))
