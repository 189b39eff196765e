"""Sources in an object store, against a server of one on the loopback interface."""

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pytest
from PIL import Image

from dermaray.data import members as members_module
from dermaray.data import storage, store_errors
from dermaray.data.archive import files_listing, joined
from dermaray.data.formats import read_reference, read_source
from dermaray.data.inputs import stream_inputs
from dermaray.data.members import Member, read_members
from dermaray.data.source import SourceImage
from dermaray.data.storage import is_uri, list_tree, local_path, name_of, read_bytes, stamp, stream_objects
from dermaray.data.store_errors import explained
from dermaray.errors import CredentialsError, DataError, StoreError
from tests.object_store import KEYS, Bucket, new_bucket

CSV = b"lesion_id,image_id,dx,age,sex,localization\nHAM_1,ISIC_1,bkl,80.0,male,scalp\nHAM_2,ISIC_2,nv,,,\n"


def jpeg(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "JPEG")
    return buffer.getvalue()


OBJECTS = {
    "folders/Train/nevus/a b #1é%20.jpg": jpeg("red"),
    "folders/Train/melanoma/deeper/b.JPG": jpeg("green"),
    "folders/Test/nevus/c.png": jpeg("blue"),
    "folders/Test/nevus/notes.txt": b"no image",
    "folders/.hidden/x.jpg": b"no image",
    "ham/HAM10000_metadata.csv": CSV,
    "ham/images/ISIC_1.jpg": jpeg("red"),
    "ham/images/ISIC_3.jpg": jpeg("green"),
}


@pytest.fixture(scope="module")
def running() -> Iterator[Bucket]:
    with new_bucket("skin") as bucket:
        for key, data in OBJECTS.items():
            bucket.client.put_object(Bucket="skin", Key=key, Body=data)
        yield bucket


@pytest.fixture
def store(running: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket `skin` with `OBJECTS` in it."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return running


@pytest.mark.parametrize("slash", ["", "/"])
def test_class_folders_below_a_prefix(store: Bucket, slash: str) -> None:
    assert read_source(store.uri(f"folders{slash}")) == [
        SourceImage(
            "a b #1é%20", store.uri("folders/Train/nevus/a%20b%20%231%C3%A9%2520.jpg"), "nevus", official_split="train"
        ),
        SourceImage("b", store.uri("folders/Train/melanoma/deeper/b.JPG"), "melanoma", official_split="train"),
        SourceImage("c", store.uri("folders/Test/nevus/c.png"), "nevus", official_split="test"),
    ]


def test_images_with_a_csv_below_a_prefix(store: Bucket) -> None:
    assert read_source(store.uri("ham")) == [
        SourceImage("ISIC_1", store.uri("ham/images/ISIC_1.jpg"), "bkl", "HAM_1", age=80.0, sex="male", site="scalp"),
        SourceImage("ISIC_2", None, "nv", "HAM_2"),
        SourceImage("ISIC_3", store.uri("ham/images/ISIC_3.jpg"), None),
    ]


@pytest.mark.parametrize("path", ["ham", "ham/HAM10000_metadata.csv"])
def test_a_reference_in_a_store(store: Bucket, path: str) -> None:
    assert {i: image.label for i, image in read_reference([store.uri(path)]).items()} == {
        "ISIC_1": "bkl",
        "ISIC_2": "nv",
    }


def test_the_environment_can_name_the_endpoint(store: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # A bucket of its own: what is opened once is opened for the whole process.
    store.client.create_bucket(Bucket="by-environment")
    store.client.put_object(Bucket="by-environment", Key="nevus/a.jpg", Body=b"data")
    images = read_source("s3://by-environment")
    assert images == [SourceImage("a", "s3://by-environment/nevus/a.jpg", "nevus")]
    assert read_bytes("s3://by-environment/nevus/a.jpg") == b"data"


def test_objects_are_read_in_the_order_asked_for_among_files(store: Bucket, tmp_path: Path) -> None:
    (tmp_path / "local.jpg").write_bytes(b"local")
    uris = [str(image.uri) for image in read_source(store.uri("folders"))]
    places = [uris[2], str(tmp_path / "local.jpg"), uris[0], uris[1]]
    members = list(read_members(files_listing(places)))
    assert [member.uri for member in members] == places
    assert [member.image_id for member in members] == ["c", "local", "a b #1é%20", "b"]
    assert [member.error for member in members] == [None] * 4
    keys = ("folders/Test/nevus/c.png", "folders/Train/nevus/a b #1é%20.jpg", "folders/Train/melanoma/deeper/b.JPG")
    assert [member.data for member in members] == [OBJECTS[keys[0]], b"local", OBJECTS[keys[1]], OBJECTS[keys[2]]]


def test_a_missing_object_is_told_and_the_others_are_read(store: Bucket) -> None:
    places = [store.uri("ham/images/gone%20now.jpg"), store.uri("ham/images/ISIC_1.jpg"), "s3://no uri.jpg"]
    missing, there, broken = read_members(files_listing(places))
    assert (there.error, there.data) == (None, OBJECTS["ham/images/ISIC_1.jpg"])
    assert missing.image_id == "gone now"
    assert [m.error and m.error.reason for m in (missing, broken)] == ["unreadable", "unreadable"]
    assert "gone%20now.jpg" in str(missing.error)
    assert "does not exist" in str(missing.error)


def test_of_a_huge_object_no_more_is_read_than_shows_that_it_is_too_large(
    store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members_module, "MAX_BYTES", 100)
    (member,) = read_members(files_listing([store.uri("ham/images/ISIC_1.jpg")]))
    assert member.data == OBJECTS["ham/images/ISIC_1.jpg"][:101]


def test_objects_are_fetched_several_at_a_time_and_not_all_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, running, most, started = threading.Lock(), 0, 0, 0

    def fetch(image_id: str, uri: str, some: list[str]) -> Member:
        nonlocal running, most, started
        with lock:
            running, started = running + 1, started + 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return Member(uri, uri, b"")

    monkeypatch.setattr(members_module, "_read_object", fetch)
    uris = [f"s3://skin/{n}.jpg" for n in range(100)]
    members = read_members(files_listing(uris))
    assert next(members).uri == uris[0]
    time.sleep(0.1)
    assert started <= members_module._THREADS
    assert [member.uri for member in members] == uris[1:]
    assert 1 < most <= members_module._THREADS


def test_access_that_is_denied(store: Bucket) -> None:
    import urllib.request

    def allow(actions: bytes) -> None:
        headers = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{store.endpoint}/moto-api/reset-auth", actions, headers))

    uri = store.uri("ham/images/ISIC_1.jpg")
    allow(b"0")
    try:
        with pytest.raises(DataError, match=r"s3://skin/ham\?.*the store does not accept the credentials"):
            read_source(store.uri("ham"))
        (member,) = read_members(files_listing([uri]))
    finally:
        allow(b"inf")
    assert member.error is not None
    assert str(member.error).startswith(f"{uri}: access is denied")


def test_a_folder_whose_store_is_away_for_a_moment_is_asked_for_again(
    store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.client.put_object(Bucket=store.name, Key="away/a/1.png", Body=b"")
    monkeypatch.setattr(store_errors, "PAUSES", (0.0,))
    failing, locate = [False, True, False], storage.locate

    class Store:
        def __init__(self, there: Any) -> None:
            self._there = there

        def get_file_info(self, selector: Any) -> Any:
            if failing.pop(0):
                raise OSError("AWS Error SLOW_DOWN")
            return self._there.get_file_info(selector)

    def now_and_then(place: str) -> tuple[Store, str]:
        there, key = locate(place)
        return Store(there), key

    monkeypatch.setattr(storage, "locate", now_and_then)
    (tree,) = stream_objects(store.uri("away"))
    assert (tree.files, failing) == ((PurePosixPath("a/1.png"),), [])


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://nowhere/images{query}", r"s3://nowhere/images\?.*: there is no such bucket"),
        ("s3://skin/nothing{query}", r"s3://skin/nothing\?.* does not exist. A prefix with images below it"),
        ("s3://skin/ham/images/ISIC_1.jpg{query}", r"ISIC_1.jpg\?.* is an object. A prefix"),
        ("s3:///ham{query}", r"names no bucket. s3://BUCKET/PREFIX was expected"),
        ("s3://skin/a name{query}", r"is no URI: a space"),
        ("s3://skin/ham?endpoint=x", r"s3://skin\?endpoint=x cannot be read: Unexpected query parameter"),
        ("nonsense://skin/ham", r"nonsense://skin: unknown kind of store. A local path, s3://, gs:// or abfs://"),
        ("az://skin/ham", r"az://skin: .*[Ii]nstall adlfs"),
    ],
)
def test_a_source_that_cannot_be_listed_is_named(store: Bucket, uri: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_source(uri.format(query=store.query))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "uri", ["s3://AKIA:hush@skin/ham", "abfs://a:hush@b.dfs.core.windows.net/c", "abfs://a@b/c?sv=1&sig=hush"]
)
def test_a_secret_in_a_uri_is_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(DataError, match="with a secret in it") as error:
        read_source(uri)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://b/c", True),
        ("gs://anonymous@b", True),
        ("/a/b", False),
        ("a://b", False),
        ("C:\\a", False),
        ("a/b", False),
    ],
)
def test_what_is_a_uri(place: str, expected: bool) -> None:
    assert is_uri(place) is expected


def test_a_file_uri_is_a_local_path(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "nevus" / "a.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"data")
    assert local_path(path.as_uri()) == path
    assert read_bytes(path.as_uri(), 2) == b"da"
    assert [image.uri for image in read_source((tmp_path / "a folder").as_uri())] == [str(path)]
    assert [m.uri for m in read_members(files_listing([path.as_uri()]))] == [str(path)]


def test_names_are_decoded() -> None:
    assert name_of("s3://b/c/%C3%A9%20.jpg?region=x").stem == "é "
    assert name_of("/a/b%20.jpg").stem == "b%20"
    # It is written into tables.
    assert name_of("https://host/caf%E9.jpg").stem == r"caf\xe9"


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"cannot be listed: Permission denied"):
        list_tree(tmp_path)


def test_a_link_to_itself_is_a_file_among_others(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert [str(file) for file in list_tree(tmp_path).files] == ["loop.jpg"]


def test_other_stores_are_opened_by_fsspec() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/skin/nevus/a b.jpg": b"one", "/skin/nevus/c.jpg": b"two"})
    try:
        listing = joined(stream_inputs(["memory://skin"]))
        assert listing.images == 2
        assert {m.image_id: m.data for m in read_members(listing.members)} == {"a b": b"one", "c": b"two"}
        missing, there = read_members(files_listing(["memory://skin/b.jpg", "memory://skin/nevus/a%20b.jpg"]))
        assert (missing.error.reason, there.data) == ("unreadable", b"one")
    finally:
        filesystem.rm("/skin", recursive=True)


class _Answers(BaseHTTPRequestHandler):
    """Answers as the path says: with a status, or with the path itself."""

    def do_GET(self) -> None:
        status = int(self.path.strip("/").split("-")[0]) if "-" in self.path else 200
        self.send_response(status)
        if "untold" in self.path:
            self.end_headers()
            for _ in range(30):
                self.wfile.write(bytes(10_000))
                self.wfile.flush()
                time.sleep(0.001)
            return
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_over_http_what_is_missing_is_told_from_what_cannot_be_reached() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begin = f"http://127.0.0.1:{server.server_port}"
        # A signed address stays what it is.
        assert read_bytes(f"{begin}/a%20b.jpg?key=1%2F2") == b"/a%20b.jpg?key=1%2F2"
        for path, error, message in (
            ("404-a.jpg", DataError, "does not exist"),
            ("403-a.jpg", DataError, "access is denied"),
            # For good, perhaps: no reason to give up the others.
            ("500-a.jpg", DataError, "the server answers 500"),
            ("503-a.jpg", StoreError, "cannot be reached"),
        ):
            with pytest.raises(error, match=message) as caught:
                read_bytes(f"{begin}/{path}")
            assert type(caught.value) is error
        assert read_bytes(f"{begin}/untold.jpg", 400_000) == bytes(300_000)
        with pytest.raises(DataError, match="access is denied"):
            list_tree(f"{begin}/403-a")
        server.shutdown()
    with pytest.raises(StoreError, match="cannot be reached"):
        read_bytes(f"{begin}/a.jpg")


def test_what_arrow_opens_by_fsspec_is_understood_as_well() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/skin/a.zip", b"one")
    assert stamp("fsspec+memory://skin/a.zip") == stamp("memory://skin/a.zip") != ""
    filesystem.rm("/skin", recursive=True)


def test_what_another_store_tells_of_an_object_tells_whether_it_was_written_anew() -> None:
    filesystem = fsspec.filesystem("memory")
    stamps = []
    for data in (b"one", b"two"):
        filesystem.pipe("/skin/a.zip", data)
        stamps.append(stamp("memory://skin/a.zip"))
    assert len({*stamps, ""}) == 3
    filesystem.rm("/skin", recursive=True)
    assert stamp("memory://skin/a.zip") == ""
    with pytest.raises(DataError, match=r"settings after a \? are not known here"):
        read_bytes("memory://skin/a.zip?region=x")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError("AWS Error INTERNAL_FAILURE during GetObject"), StoreError, "cannot be reached"),
        (OSError("AWS Error REQUEST_TIMEOUT during GetObject"), StoreError, "cannot be reached"),
        (OSError("AWS Error REQUEST_TIME_TOO_SKEWED during GetObject"), StoreError, "clock"),
        (OSError("ClientPayloadError: Response payload is not completed"), StoreError, "cannot be reached"),
        (TimeoutError(), StoreError, "cannot be reached"),
        (OSError("Opening: Azure Error: [ServerBusy] 503 The server is busy."), StoreError, "cannot be reached"),
        (OSError("Opening: Azure Error: [AuthenticationFailed] 403 Server failed"), CredentialsError, "credentials"),
        (OSError("HfHubHTTPError: 429 Client Error: Too Many Requests"), StoreError, "cannot be reached"),
        (PermissionError(13, "Permission denied", "/timeout/connect.zip"), DataError, "Permission denied"),
    ],
)
def test_what_passes_is_told_from_what_stays(error: Exception, kind: type[DataError], message: str) -> None:
    found = explained("/timeout/connect.zip", error)
    assert type(found) is kind
    assert message in str(found)
