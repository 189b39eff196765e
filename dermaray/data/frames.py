"""Frames on the node's own disk: what one task has decoded, every later one reads.

A node has one file of frames per image table, at offsets that follow from the sizes in the manifest, and beside it one
byte per image that tells whether its frame is there. Tasks read and write with `pread` and `pwrite`, so the operating
system keeps in memory as much of the file as there is room for, and gives it up for whatever needs it more. Nothing
here raises on a disk that is full or gone: the frame is decoded once more.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import ray

from dermaray import __version__
from dermaray.images.resize import UInt8Array, frame_shape
from dermaray.images.spec import InputSpec

IntArray = npt.NDArray[np.int32]

_FOLDER = "dermaray-frames"
_FORMAT = 1
_PIXELS, _PRESENT = "pixels", "present"
_RESERVED_SHARE = 0.1
"""Of the disk, left free: at 5 % Ray itself begins to refuse objects."""
_RESERVED_BYTES = 2 * 1024**3
_REMOVAL_SECONDS = 20


@dataclass(frozen=True)
class FrameLayout:
    """Where the frame of every image of a table lies.

    Attributes:
        key: Names the frames: other images, sizes or an other `InputSpec` have another.
        shapes: Rows and columns, int32 [N, 2].
        offsets: Bytes, int64 [N + 1]; frame i ends where frame i + 1 begins.
    """

    key: str
    shapes: IntArray
    offsets: npt.NDArray[np.int64]


def frame_layout(digest: str, heights: IntArray, widths: IntArray, spec: InputSpec) -> FrameLayout:
    """Lay out the frames of a table.

    Args:
        digest: Tells the images' bytes and their order from those of every other table.
        heights: Of the images, upright, in pixels, int32 [N].
        widths: As `heights`.
        spec: What the model wants.
    """
    # Cameras have few sizes: each is asked for once.
    sizes, which = np.unique(np.stack([heights, widths], axis=1), axis=0, return_inverse=True)
    known = np.array([frame_shape(int(height), int(width), spec) for height, width in sizes], np.int32).reshape(-1, 2)
    shapes = known[which.reshape(-1)]
    offsets = np.concatenate([[0], np.cumsum(3 * shapes.astype(np.int64).prod(axis=1))])
    key = hashlib.sha256(f"{_FORMAT}\0{__version__}\0{digest}\0{spec.model_dump_json()}".encode())
    key.update(np.ascontiguousarray(shapes).tobytes())
    return FrameLayout(key.hexdigest()[:32], shapes, offsets)


class FrameCache:
    """The frames of one table on one node, open for one task; a context manager.

    Args:
        folder: Of this node, for the frames of all tables; made where it is missing. None for a cache that has nothing
            and takes nothing.
        layout: Of the table.
    """

    def __init__(self, folder: Path | None, layout: FrameLayout) -> None:
        self._layout, self._files, self._room = layout, (-1, -1), 0
        if folder is None or len(layout.shapes) == 0:
            return
        with suppress(OSError):
            self._files = _open_files(folder, layout)
            self._room = _room(folder)

    def __enter__(self) -> "FrameCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._files:
            if file >= 0:
                os.close(file)
        self._files = (-1, -1)

    def holds(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        """Tell for each of some images whether its frame was there a moment ago."""
        present = b""
        if self._files[1] >= 0:
            with suppress(OSError):
                present = os.pread(self._files[1], len(self._layout.shapes), 0)
        if len(present) != len(self._layout.shapes):
            return np.zeros(len(rows), np.bool_)
        return np.frombuffer(present, np.bool_)[rows]

    def read(self, row: int, frame: UInt8Array) -> bool:
        """Read a frame that `holds` told of into an array, contiguous and of its shape; False where it is gone."""
        with suppress(OSError):
            return os.preadv(self._files[0], [frame.data], self._layout.offsets[row]) == frame.nbytes
        return False

    def write(self, row: int, frame: UInt8Array) -> None:
        """Keep a frame, where the disk has room for it.

        Raises:
            ValueError: The frame is not of the shape that the layout has for it.
        """
        if frame.shape != (*self._layout.shapes[row], 3):
            raise ValueError(f"frame {row} must be {self._layout.shapes[row]}. Received: {frame.shape}")
        self._room -= frame.nbytes
        if self._room < 0:
            return
        try:
            written = os.pwrite(self._files[0], np.ascontiguousarray(frame).data, self._layout.offsets[row])
            # Only now, so that nobody reads a frame that is half there.
            if written == frame.nbytes:
                os.pwrite(self._files[1], b"\1", row)
        except OSError:
            self._room = 0


def node_folder() -> Path | None:
    """Return this node's folder for frames, below that of the Ray session; None where there is no place for one."""
    node = ray._private.worker._global_node
    if node is None:
        return None
    folder = Path(node.get_session_dir_path()) / _FOLDER
    try:
        _hold(folder)
        return None if _in_memory(folder) else folder
    except OSError:
        return None


def remove_frames(layouts: Sequence[FrameLayout]) -> None:
    """Remove the frames of some tables from all nodes, as far as these answer.

    Files that a task has open stay with it until it ends; whoever comes after it begins with none.
    """
    keys = [layout.key for layout in layouts]
    with suppress(ray.exceptions.RayError, ConnectionError):
        # Without a task, which might wait a second for a process to start in.
        here = ray.get_runtime_context().get_node_id() if _remove_here(keys) else None
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        task = ray.remote(num_cpus=0, max_retries=0)(_remove_here)
        removals = [task.options(scheduling_strategy=strategy(node, soft=True)).remote(keys) for node in nodes]
        ray.wait(removals, num_returns=len(removals), timeout=_REMOVAL_SECONDS)


def _remove_here(keys: Sequence[str]) -> bool:
    """Remove frames from the node of this process; False where it has no folder, or is on none."""
    folder = node_folder()
    if folder is None:
        return False
    for key in keys:
        shutil.rmtree(folder / key, ignore_errors=True)
    return True


def _open_files(folder: Path, layout: FrameLayout) -> tuple[int, int]:
    """Open the files of a table, new ones where they are missing or not of their size."""
    place = folder / layout.key
    sizes = {_PIXELS: int(layout.offsets[-1]), _PRESENT: len(layout.shapes)}
    for _ in range(2):
        with suppress(FileNotFoundError):
            pixels, present = files = _open(place / _PIXELS), _open(place / _PRESENT)
            if [os.fstat(file).st_size for file in files] == list(sizes.values()):
                return pixels, present
            for file in files:
                os.close(file)
            shutil.rmtree(place)
        _make_files(folder, place, sizes)
    raise OSError(errno.ESTALE, "the frames vanish as soon as they are made", str(place))


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def _make_files(folder: Path, place: Path, sizes: dict[str, int]) -> None:
    """Make a table's files, without any frame; they take no room yet. Who comes second leaves those of the first."""
    partial_folder = Path(tempfile.mkdtemp(dir=folder))
    try:
        for name, size in sizes.items():
            file = os.open(partial_folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(file, size)
            finally:
                os.close(file)
        with suppress(FileExistsError):
            partial_folder.rename(place)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def _room(folder: Path) -> int:
    """Return how many bytes may still be written."""
    disk = shutil.disk_usage(folder)
    return int(disk.free - max(_RESERVED_SHARE * disk.total, _RESERVED_BYTES))


@cache
def _hold(folder: Path) -> int:
    """Make the folder of this Ray session and mark it as in use while this process lives; remove those of dead ones.

    A run that was killed could not remove its frames, and Ray keeps the folders of its sessions.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_SH)
    for other in folder.parent.parent.glob(f"session_*/{_FOLDER}"):
        # The link that Ray sets to its latest session leads to this one.
        if not other.parent.is_symlink() and other != folder:
            _remove_unheld(other)
    return held


def _remove_unheld(folder: Path) -> None:
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(file)


@cache
def _in_memory(folder: Path) -> bool:
    """Tell whether a folder lies in a file system that is memory: frames there could not be given up for others."""
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    kinds = {line.split(" - ")[1].split()[0] for line in mounts if line.split()[2] == number}
    return bool(kinds & {"tmpfs", "ramfs"})
