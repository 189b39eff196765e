import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from dermaray.errors import OutputError
from dermaray.files import MARK, atomic_directory, check_output, sha256_file, write_json


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def write_into(target: Path, text: str, overwrite: bool = False) -> None:
    with atomic_directory(target, overwrite=overwrite) as out:
        (out / "new.txt").write_text(text)


def fail_into(target: Path, overwrite: bool = False) -> None:
    with atomic_directory(target, overwrite=overwrite) as out:
        (out / "new.txt").write_text("half")
        raise RuntimeError("stopped")


def test_an_output_appears_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "deep" / "out") as out:
        (out / "sub").mkdir()
        (out / "sub" / "a.txt").write_text("a")
        assert not (tmp_path / "deep" / "out").exists()
    assert tree(tmp_path) == {"deep", "deep/out", f"deep/out/{MARK}", "deep/out/sub", "deep/out/sub/a.txt"}
    assert (tmp_path / "deep" / "out").stat().st_mode & 0o777 == 0o755


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        fail_into(tmp_path / "out")
    assert tree(tmp_path) == set()


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_directory(tmp_path / "out"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.keras")

    with pytest.raises(OutputError, match=r"No space left on device\. Make room"):
        write()
    assert tree(tmp_path) == set()
    # What cannot be read is no matter of the output.
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "out"):
        (tmp_path / "missing").read_bytes()


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "out"):
        raise KeyboardInterrupt
    assert tree(tmp_path) == set()


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_into(tmp_path / "out", "new")
    assert tree(tmp_path) == {"out", f"out/{MARK}", "out/new.txt"}


def test_a_folder_that_holds_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"holds files that dermaray did not write"):
            write_into(tmp_path, "new", overwrite=overwrite)
    assert tree(tmp_path) == {"mine.txt"}


def test_an_earlier_result_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    write_into(tmp_path / "out", "old")
    with pytest.raises(OutputError, match=r"earlier result. Choose a new folder, or add --overwrite"):
        write_into(tmp_path / "out", "new")
    assert (tmp_path / "out" / "new.txt").read_text() == "old"


def finish_second(target: Path) -> None:
    with atomic_directory(target) as out:
        (out / "second.txt").touch()
        write_into(target, "first")


def test_whoever_comes_second_keeps_his_work_beside_the_first(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is complete, but could not become"):
        finish_second(tmp_path / "out")
    assert (tmp_path / "out" / "new.txt").read_text() == "first"
    (kept,) = tmp_path.glob(".out.*.partial/second.txt")
    assert kept.exists()


def test_through_a_link_the_folder_behind_it_is_replaced(tmp_path: Path) -> None:
    write_into(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_into(tmp_path / "link", "new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "new.txt").read_text() == "new"


def test_overwrite_replaces_the_whole_folder(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "out") as out:
        (out / "old.txt").write_text("old")
    write_into(tmp_path / "out", "new", overwrite=True)
    assert tree(tmp_path) == {"out", f"out/{MARK}", "out/new.txt"}
    assert (tmp_path / "out" / "new.txt").read_text() == "new"


def test_what_was_there_survives_a_failed_overwrite(tmp_path: Path) -> None:
    write_into(tmp_path / "out", "old")
    with pytest.raises(RuntimeError, match="stopped"):
        fail_into(tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == {"out", f"out/{MARK}", "out/new.txt"}
    assert (tmp_path / "out" / "new.txt").read_text() == "old"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_is_never_replaced_by_a_folder(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"out is a file. Choose a new folder$"):
        write_into(tmp_path / "out", "new", overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "a file"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write to .*file: .*Choose another folder"):
        write_into(tmp_path / "file" / "out", "new")


def test_an_output_can_be_checked_before_any_work(tmp_path: Path) -> None:
    check_output(tmp_path / "none", overwrite=False)
    check_output(tmp_path, overwrite=False)
    write_into(tmp_path / "out", "old")
    check_output(tmp_path / "out", overwrite=True)
    with pytest.raises(OutputError, match="earlier result"):
        check_output(tmp_path / "out", overwrite=False)


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 5000])
def test_sha256_is_that_of_the_bytes(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_json_is_written_for_people_too_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text("old")
    value = {"name": "naïve – ok", "list": [1, 2.5, None]}
    write_json(path, value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert '\n  "name": "naïve – ok"' in text
    assert text.endswith("}\n")
    assert tree(tmp_path) == {"value.json"}


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"path": path})
    assert path.read_text() == "1\n"
    assert tree(tmp_path) == {"value.json"}
