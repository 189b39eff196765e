"""The cache of frames: what was written is read, and whatever happens to the disk costs time alone."""

import errno
import fcntl
import os
import shutil
import stat
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dermaray.data import frames
from dermaray.data.frames import FrameCache, FrameLayout, frame_layout
from dermaray.images.decode import decode_frame
from dermaray.images.resize import frame_shape
from dermaray.images.spec import InputSpec

HEIGHTS = np.array([90, 120, 90, 400, 33], np.int32)
WIDTHS = np.array([120, 90, 120, 40, 33], np.int32)
SPECS = {resize: InputSpec(height=20, width=30, resize=resize) for resize in ("stretch", "crop", "pad")}
CROP = frame_layout("digest", HEIGHTS, WIDTHS, SPECS["crop"])
ROWS = np.arange(len(HEIGHTS), dtype=np.int32)


def frame_of(row: int, layout: FrameLayout = CROP) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (*layout.shapes[row], 3), dtype=np.uint8)


def fill(folder: Path, layout: FrameLayout = CROP) -> None:
    with FrameCache(folder, layout) as cache:
        for row in ROWS:
            cache.write(row, frame_of(row, layout))


def held(folder: Path, layout: FrameLayout = CROP) -> list[bool]:
    with FrameCache(folder, layout) as cache:
        return [bool(value) for value in cache.holds(ROWS)]


def read(cache: FrameCache, row: int, layout: FrameLayout = CROP) -> np.ndarray | None:
    frame = np.zeros((*layout.shapes[row], 3), np.uint8)
    return frame if cache.read(row, frame) else None


def refuse(*_: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("resize", SPECS)
def test_frames_lie_one_after_the_other_in_the_shapes_that_decoding_gives(resize: str) -> None:
    layout = frame_layout("digest", HEIGHTS, WIDTHS, SPECS[resize])
    sizes = []
    for height, width, shape in zip(HEIGHTS, WIDTHS, layout.shapes, strict=True):
        assert tuple(shape) == frame_shape(int(height), int(width), SPECS[resize])
        _, encoded = cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))
        decoded = decode_frame(encoded.tobytes(), SPECS[resize]).pixels
        assert decoded.shape == (*shape, 3)
        sizes.append(decoded.nbytes)
    assert layout.offsets.tolist() == [sum(sizes[:i]) for i in range(len(sizes) + 1)]


def test_the_key_tells_images_sizes_and_inputs_apart() -> None:
    layouts = [
        CROP,
        frame_layout("other", HEIGHTS, WIDTHS, SPECS["crop"]),
        frame_layout("digest", HEIGHTS[::-1], WIDTHS[::-1], SPECS["crop"]),
        frame_layout("digest", HEIGHTS, WIDTHS, SPECS["pad"]),
        frame_layout("digest", HEIGHTS, WIDTHS, InputSpec(height=20, width=30, resize="crop", scaled_decoding=False)),
    ]
    assert len({layout.key for layout in layouts}) == len(layouts)
    assert frame_layout("digest", HEIGHTS, WIDTHS, SPECS["crop"]).key == CROP.key


def test_what_one_task_writes_the_next_one_reads(tmp_path: Path) -> None:
    with FrameCache(tmp_path, CROP) as cache:
        cache.write(3, frame_of(3))
        cache.write(1, frame_of(1))
    with FrameCache(tmp_path, CROP) as cache:
        assert cache.holds(ROWS).tolist() == [False, True, False, True, False]
        assert cache.holds(np.array([3, 3, 0], np.int32)).tolist() == [True, True, False]
        for row in (1, 3):
            assert np.array_equal(read(cache, row), frame_of(row))


def test_neighbours_do_not_touch(tmp_path: Path) -> None:
    fill(tmp_path)
    with FrameCache(tmp_path, CROP) as cache:
        for row in ROWS:
            assert np.array_equal(read(cache, row), frame_of(row))


def test_a_frame_of_another_shape_is_refused(tmp_path: Path) -> None:
    with FrameCache(tmp_path, CROP) as cache, pytest.raises(ValueError, match="must be"):
        cache.write(0, np.zeros((21, 30, 3), np.uint8))
    assert not any(held(tmp_path))


def test_only_the_user_may_read_frames(tmp_path: Path) -> None:
    fill(tmp_path)
    folder = tmp_path / CROP.key
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_cache_without_a_folder_has_nothing_and_takes_nothing() -> None:
    with FrameCache(None, CROP) as cache:
        cache.write(0, frame_of(0))
        assert not cache.holds(ROWS).any()


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", refuse)
    fill(tmp_path)
    monkeypatch.undo()
    assert not any(held(tmp_path))


def test_a_frame_that_was_written_in_part_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite

    def half(file: int, data: Any, offset: int) -> int:
        return whole(file, bytes(data)[: 1 + len(bytes(data)) // 2], offset)

    monkeypatch.setattr(os, "pwrite", half)
    fill(tmp_path)
    monkeypatch.undo()
    assert not any(held(tmp_path))


def test_a_part_of_the_disk_is_left_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    disk = 100 * frames._RESERVED_BYTES
    room = frame_of(0).nbytes + frame_of(1).nbytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(disk, 0, disk // 10 + room))
    fill(tmp_path)
    assert held(tmp_path) == [True, True, False, False, False]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fill(tmp_path / "file")
    assert not any(held(tmp_path / "file"))


@pytest.mark.parametrize("name", ["pixels", "present"])
def test_a_file_that_was_cut_begins_anew(name: str, tmp_path: Path) -> None:
    fill(tmp_path)
    os.truncate(tmp_path / CROP.key / name, 3)
    assert not any(held(tmp_path))
    fill(tmp_path)
    with FrameCache(tmp_path, CROP) as cache:
        assert np.array_equal(read(cache, 4), frame_of(4))


def test_a_file_that_is_cut_while_open_is_read_as_gone(tmp_path: Path) -> None:
    fill(tmp_path)
    with FrameCache(tmp_path, CROP) as cache:
        os.truncate(tmp_path / CROP.key / "pixels", CROP.offsets[3] + 1)
        assert read(cache, 3) is None
        assert np.array_equal(read(cache, 2), frame_of(2))


def test_removal_leaves_open_files_to_whoever_has_them(tmp_path: Path) -> None:
    fill(tmp_path)
    with FrameCache(tmp_path, CROP) as cache:
        shutil.rmtree(tmp_path / CROP.key)
        assert np.array_equal(read(cache, 2), frame_of(2))
        cache.write(2, frame_of(2))
    assert not any(held(tmp_path))


def test_tasks_that_begin_at_once_share_one_file(tmp_path: Path) -> None:
    tasks, failures = 8, []
    together = threading.Barrier(tasks)

    def task() -> None:
        together.wait()
        with FrameCache(tmp_path, CROP) as cache:
            together.wait()
            for row in ROWS:
                cache.write(row, frame_of(row))
            together.wait()
            failures.extend(row for row in ROWS if not np.array_equal(read(cache, row), frame_of(row)))

    threads = [threading.Thread(target=task) for _ in range(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in tmp_path.iterdir()] == [CROP.key]
    assert all(held(tmp_path))


def test_what_a_killed_session_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    dead, alive = (tmp_path / f"session_{name}" / frames._FOLDER for name in ("dead", "alive"))
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        fill(folder)
    user = os.open(alive, os.O_RDONLY)
    fcntl.flock(user, fcntl.LOCK_SH)
    own = tmp_path / "session_own" / frames._FOLDER
    own.parent.mkdir()
    (tmp_path / "session_latest").symlink_to(own.parent)
    frames._hold(own)
    fill(own)
    assert not dead.exists()
    assert all(held(alive))
    assert all(held(own))
    # A later session spares this one, which still holds its folder.
    later = tmp_path / "session_later" / frames._FOLDER
    later.parent.mkdir()
    frames._hold(later)
    assert all(held(own))
    os.close(user)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no file system in memory")
def test_a_folder_in_memory_is_told() -> None:
    assert frames._in_memory(Path("/dev/shm"))
    assert not frames._in_memory(Path(__file__).parent)
