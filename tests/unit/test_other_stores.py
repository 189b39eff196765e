"""Stores that fsspec opens: what fails there is told, and nothing is passed over without a word."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs
import pytest

from dermaray.data import other_stores, store_errors
from dermaray.data.other_stores import understood
from dermaray.data.storage import list_tree, read_bytes
from dermaray.errors import DataError, StoreError

PAGES = {
    "/images/": '<a href="../">up</a> <a href="a/">a</a> <a href="b/">b</a>',
    "/images/a/": '<a href="../">up</a> <a href="1.jpg">1</a>',
    "/images/b/": '<a href="2.jpg">2</a>',
}


class _Server(ThreadingHTTPServer):
    """Serves `PAGES`.

    Attributes:
        broken: The page of which the connection breaks.
        missing: The page that is not there any more.
    """

    broken = missing = ""


class _Pages(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = self.path.rstrip("/") + "/"
        if path == self.server.broken:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        page = b"" if path == self.server.missing else PAGES.get(path, "").encode()
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        # An honest answer to HEAD has no more.
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(store_errors, "PAUSES", (0.0,))
    with _Server(("127.0.0.1", 0), _Pages) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_a_folder_that_cannot_be_listed_is_not_passed_over(server: _Server) -> None:
    place = f"http://127.0.0.1:{server.server_port}/images"
    assert [str(file) for file in list_tree(place).files] == ["a/1.jpg", "b/2.jpg"]
    # What was removed meanwhile takes nothing else with it.
    server.missing = "/images/a/"
    assert [str(file) for file in list_tree(place).files] == ["b/2.jpg"]
    server.broken = "/images/b/"
    with pytest.raises(StoreError, match="cannot be reached"):
        list_tree(place)
    with pytest.raises(DataError, match="does not exist"):
        list_tree(f"http://127.0.0.1:{server.server_port}/nothing")


@pytest.mark.parametrize("recursive", [True, False])
def test_a_walk_finds_what_the_store_s_own_does(recursive: bool, tmp_path: Path) -> None:
    filesystem = fsspec.filesystem("file")
    for name in ("skin/nevus/a.jpg", "skin/b.jpg", "skin-2/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    its_own = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(filesystem))
    there = understood(its_own)
    assert not other_stores._lists_at_once(filesystem)
    selector = pa.fs.FileSelector(str(tmp_path / "skin"), recursive=recursive)
    found, expected = (sorted((i.path, i.type) for i in store.get_file_info(selector)) for store in (there, its_own))
    assert found == expected
    assert len(found) == (3 if recursive else 2)
    with pytest.raises(NotADirectoryError):
        there.get_file_info(pa.fs.FileSelector(str(tmp_path / "skin" / "b.jpg")))
    assert there.get_file_info(pa.fs.FileSelector(str(tmp_path / "nothing"), allow_not_found=True)) == []


def test_a_server_that_says_nothing_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_errors, "PAUSES", ())
    monkeypatch.setattr(other_stores, "_READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(StoreError, match="cannot be reached"):
        read_bytes(f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg")


class _Told(Exception):
    """An error of a package's own, no `OSError`, that names an answer over HTTP."""

    def __init__(self, **told: Any) -> None:
        super().__init__("of its own")
        vars(self).update(told)


@pytest.mark.parametrize("told", [{"status_code": 503}, {"response": SimpleNamespace(status_code=503)}, {"code": 503}])
def test_an_error_of_a_package_s_own_is_understood_when_writing(told: dict[str, Any]) -> None:
    class Full:
        def __init__(self) -> None:
            self.tried: list[str] = []

        def write(self, _: bytes) -> int:
            self.tried.append("write")
            raise _Told(**told)

        def close(self) -> None:
            self.tried.append("close")
            raise _Told(**told)

    file = other_stores._File(Full())  # type: ignore[arg-type]
    for attempt in (lambda: file.write(b"x"), file.close):
        with pytest.raises(OSError, match="HTTP status 503") as caught:
            attempt()
        assert isinstance(store_errors.explained("az://skin/a", caught.value), StoreError)
    with suppress(OSError):
        file.close()
