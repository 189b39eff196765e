"""What is read again after a process was lost: every image comes to one row, and the one that kills to its own."""

import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dermaray.data.archive import list_members
from dermaray.data.members import MEMBER_SCHEMA
from dermaray.decisions.decisions import Decisions
from dermaray.errors import ClusterError
from dermaray.images.spec import InputSpec
from dermaray.labels import LabelSet
from dermaray.models.artifact import Artifact
from dermaray.models.bulk import Actors, Batch
from dermaray.models.engines import EngineName
from dermaray.models.predictor import ENGINE_BATCH
from dermaray.scoring import run
from dermaray.scoring.ahead import Ahead
from dermaray.scoring.gathered import Gathered
from dermaray.scoring.pieces import BLOCK_BATCHES, TRIES, Piece, images_in, pieces_of
from dermaray.scoring.pipeline import _BLOCK_SECONDS, NOTHING, STAGES, _joined

LABELS = LabelSet("custom", ("nevus", "melanoma"), frozenset({"melanoma"}), "melanoma")


@pytest.fixture
def artifact(decisions_of: Callable[..., Decisions]) -> Artifact:
    return Artifact(Path("model"), "some-model", "1", InputSpec(), LABELS, decisions_of(LABELS), {}, "0" * 64, {})


def folder(count: int) -> pa.Table:
    rows = [
        {"archive": "/x", "kind": "folder", "name": f"{number}.jpg".encode(), "offset": 0, "size": 0}
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, MEMBER_SCHEMA)


def batch(piece: Piece, rows: range, *, last: bool) -> Batch:
    names = np.array([f"{piece.shard}-{piece.task}-{row}" for row in rows])
    count = len(rows)
    return {
        **{name: np.full(count, getattr(piece, name)) for name in ("shard", "task", "start")},
        "row": np.array(rows),
        "last": np.array(rows) == (rows[-1] if last else -1),
        "image_id": names,
        "uri": names,
        "reason": np.full(count, ""),
        "message": np.full(count, ""),
        "sha256": np.full(count, "a" * 64),
        "width": np.full(count, 4),
        "height": np.full(count, 3),
        "probabilities": np.full((count, 2), 0.5, np.float32),
        "label": np.zeros(count, int),
        "alert": np.zeros(count, bool),
        "refer": np.zeros(count, bool),
        "ood_score": np.zeros(count, np.float32),
        "prediction_set": np.zeros((count, 2), bool),
        **{stage: np.zeros(count) for stage in STAGES},
    }


def read(piece: Piece, images: int, kills: Callable[[int], bool]) -> Iterator[Batch]:
    """Give what a process gives, in blocks, that dies as it comes to some images, which is ahead of what it gives."""
    end = images if piece.stop is None else min(piece.stop, images)
    if piece.start >= end:
        yield {**batch(piece, range(1), last=True), "reason": np.array([NOTHING])}
    given = piece.start
    for start in range(piece.start, end, ENGINE_BATCH):
        stop = min(start + ENGINE_BATCH, end)
        if any(map(kills, range(start, min(start + 3 * ENGINE_BATCH, end)))):
            return
        if stop == end or stop - given == BLOCK_BATCHES * ENGINE_BATCH:
            yield batch(piece, range(given, stop), last=stop == end)
            given = stop


def streamed(kind: str, images: int) -> pa.Table:
    row = {"archive": "/x.tar.gz", "kind": kind, "name": b"x.tar.gz", "offset": 0, "size": images}
    return pa.Table.from_pylist([row], MEMBER_SCHEMA)


@pytest.mark.parametrize("images", [1, 5, 128, 300, 900])
@pytest.mark.parametrize("killers", [(), (0,), (4,), (99,), (3, 4, 128), (5, 40, 70), (3, 140, 270, 299), (640, 899)])
@pytest.mark.parametrize("kind", ["folder", "tar_stream", "table"])
def test_every_image_has_one_row_whatever_kills(
    kind: str, killers: tuple[int, ...], images: int, artifact: Artifact
) -> None:
    shard = folder(images) if kind == "folder" else streamed(kind, images)
    pieces = pieces_of([shard], [0])
    sizes = {piece.task: images if piece.stop is None else piece.stop for piece in pieces}
    gathered = Gathered([shard], artifact)
    gathered.expect(pieces)
    readings = 0
    while pieces:
        for piece in pieces:
            for part in read(piece, sizes[piece.task], lambda row, task=piece.task: 128 * task + row in killers):
                gathered.add(part)
        pieces = gathered.left_of(pieces)
        readings += 1
        assert readings < 30
    assert gathered.whole() == [0]
    assert gathered.count == images
    rows = gathered.take(0)
    assert len(rows) == images
    dead = [killer for killer in killers if killer < images]
    assert [reason == "crashed" for reason in rows["reason"].to_pylist()] == [n in dead for n in range(images)]
    assert (readings == 1) == (not dead)


def test_rows_that_came_before_a_loss_are_kept_up_to_the_first_gap(artifact: Artifact) -> None:
    shard = folder(100)
    pieces = pieces_of([shard], [0])
    gathered = Gathered([shard], artifact)
    gathered.expect(pieces)
    gathered.add(batch(pieces[0], range(64, 100), last=True))
    gathered.add(batch(pieces[0], range(32), last=False))
    left = gathered.left_of(pieces)
    assert [(piece.start, piece.stop) for piece in left] == [(32, 100)]
    assert gathered.count == 32
    assert not gathered.whole()


def test_an_archive_that_kills_wherever_it_is_begun_is_given_up(artifact: Artifact) -> None:
    shard = streamed("tar_stream", 0)
    pieces = pieces_of([shard], [0])
    gathered = Gathered([shard], artifact)
    gathered.expect(pieces)
    for _ in range(30):
        pieces = gathered.left_of(pieces)
    assert not pieces
    assert gathered.given_up == gathered.count
    messages = gathered.take(0)["message"].to_pylist()
    assert sum("what follows in the archive" in message for message in messages) == 1


def test_a_piece_is_read_from_its_start_to_its_stop(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for number in range(5):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 1
            archive.addfile(info, io.BytesIO(b"%d" % number))
            (tmp_path / "folder").mkdir(exist_ok=True)
            (tmp_path / "folder" / info.name).write_bytes(b"%d" % number)
    for source in ("x.tar.gz", "folder"):
        (whole,) = pieces_of([list_members(tmp_path / source).members], [0])
        for start, stop in ((0, 5), (1, 3), (4, 5), (2, whole.stop)):
            piece = Piece(0, 0, start, stop, whole.members)
            for position in range(start, stop or 5):
                found = [member.data for member in images_in(piece.table(), position) if member is not None]
                assert found == [b"%d" % n for n in range(position, stop or 5)]


def test_a_single_image_is_left_alone_after_so_many_losses() -> None:
    piece, losses = pieces_of([folder(1)], [0])[0], 1
    while not piece.hopeless:
        (piece,) = piece.again(0)
        losses += 1
    assert losses == TRIES
    assert piece.first() == ("0", "/x/0.jpg")


def test_a_thread_works_ahead_and_is_given_up_when_it_hangs() -> None:
    released = threading.Event()

    def values() -> Iterator[int]:
        yield 1
        yield 2
        released.wait(60)
        yield 3

    ahead = Ahead(values(), 4)
    taken = ahead.take(1.0)
    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(TimeoutError):
        next(taken)
    ahead.give_up()
    released.set()


def test_what_a_thread_fails_with_is_raised_where_its_value_would_have_been() -> None:
    def values() -> Iterator[int]:
        yield 1
        raise ValueError("bad")

    taken = Ahead(values(), 4).take(5)
    assert next(taken) == 1
    with pytest.raises(ValueError, match="bad"):
        next(taken)


def test_batches_are_given_together_but_not_those_that_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("dermaray.scoring.pipeline.time.monotonic", lambda: now)

    def batches(seconds: float) -> Iterator[Batch]:
        nonlocal now
        for row in range(BLOCK_BATCHES + 2):
            now += seconds
            yield {"row": np.array([row]), "reason": np.array([""])}

    sizes = [block["row"].tolist() for block in _joined(batches(0.0))]
    assert sizes == [[0, 1, 2, 3], [4, 5]]
    assert [len(block["row"]) for block in _joined(batches(_BLOCK_SECONDS + 1))] == [1] * (BLOCK_BATCHES + 2)


def test_a_batch_that_could_not_be_scored_is_given_with_those_that_were() -> None:
    good = {"row": np.array([0]), "reason": np.array([""]), "label": np.array([1])}
    (block,) = _joined([good, {"row": np.array([1]), "reason": np.array(["failed"])}])
    assert block.keys() == {"row", "reason"}
    assert block["reason"].tolist() == ["", "failed"]


class Place:
    """Stands for the listing and the ledger of a run of one shard."""

    def __init__(self, shard: pa.Table) -> None:
        self.shards, self.published = [shard], {}

    def wait(self, *_: object) -> int:
        return 1

    def check(self) -> None: ...

    def note_inputs(self) -> None: ...

    def done(self) -> set[int]:
        return set()

    def publish(self, number: int, rows: pa.Table) -> None:
        self.published[number] = rows


@pytest.mark.parametrize("kind", ["folder", "tar_stream"])
def test_many_images_that_kill_side_by_side_are_found(
    kind: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    killers = range(128, 256)
    shard = folder(300) if kind == "folder" else streamed(kind, 300)

    def batches(pieces: list[Piece], *_: object, **__: object) -> Iterator[Batch]:
        for piece in pieces:
            begin = 128 * piece.task
            yield from read(piece, min(300 - begin, piece.stop or 300), lambda row, b=begin: b + row in killers)

    monkeypatch.setattr(run, "_batches", batches)
    place = Place(shard)
    run.score_shards(place, artifact, place, Actors(), 60.0, lambda _: None)
    reasons = place.published[0]["reason"].to_pylist()
    assert [reason == "crashed" for reason in reasons] == [number in killers for number in range(300)]


def test_where_nothing_can_be_scored_any_more_no_image_is_blamed(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = 0

    def batches(pieces: list[Piece], *_: object, **__: object) -> Iterator[Batch]:
        nonlocal readings
        readings += 1
        if readings == 1:
            yield batch(pieces[0], range(128), last=True)

    monkeypatch.setattr(run, "_batches", batches)
    place = Place(folder(300))
    with pytest.raises(ClusterError, match="die before they have scored anything"):
        run.score_shards(place, artifact, place, Actors(), 60.0, lambda _: None)
    assert not place.published


@pytest.mark.parametrize(
    ("engine", "count", "gpus", "fed", "expected"),
    [
        ("litert", None, 2, True, Actors("litert", 8)),
        ("litert", 3, 0, True, Actors("litert", 3)),
        ("keras", None, 0, True, Actors("keras", 1)),
        ("keras", None, 0, False, Actors("keras", 8)),
        ("keras", None, 2, True, Actors("keras", 2, gpus=1)),
        ("keras", None, 2, False, Actors("keras", 2, gpus=1)),
        ("keras", 1, 2, True, Actors("keras", 1, gpus=1)),
    ],
)
def test_there_are_as_many_processes_as_can_be_kept_busy(
    engine: EngineName, count: int | None, gpus: float, fed: bool, expected: Actors
) -> None:
    assert Actors.chosen(engine, count, cpus=8, gpus=gpus, fed=fed) == expected
