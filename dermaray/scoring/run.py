"""A run of bulk scoring: the shards that are not there yet, through Ray Data until every image has its row."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import ray

from dermaray import errors
from dermaray.errors import ClusterError, find_user_error
from dermaray.models.artifact import Artifact
from dermaray.models.bulk import Actors, Batch
from dermaray.models.rows import SCORED
from dermaray.scoring.gathered import Gathered
from dermaray.scoring.ledger import Ledger
from dermaray.scoring.listed import Listed
from dermaray.scoring.pieces import TRIES, Piece, pieces_of
from dermaray.scoring.pipeline import FAILED, batches_given, score_pieces

_IDLE_ROUNDS = 2 * TRIES
"""Readings without a single row after which it is asked whether anything can be scored at all."""

_ROUND_SECONDS = 30.0
"""That a pipeline waits for a shard for each process, lest most of them wait for the last one at its end."""

logger = logging.getLogger(__name__)


def score_shards(
    listed: Listed,
    artifact: Artifact,
    ledger: Ledger,
    actors: Actors,
    seconds: float,
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Score the shards that the ledger lacks on the connected Ray cluster, and publish each as it is whole.

    Those that are known by now come first, then what was listed meanwhile. What a process left that was lost is read
    by another when nothing else is there, in ever smaller pieces, until it is known over which image processes are
    lost; that one has a row that says so.

    Args:
        listed: The input, which may still be listed.
        artifact: The model; its folder must be readable from every node.
        ledger: Where rows go.
        actors: What holds the model.
        seconds: How long a single image may take to read and decode.
        progress: Called with the number of images that have their rows by now.

    Returns:
        The seconds that the images took by stage, of all processes together; see `dermaray.scoring.pipeline.STAGES`.

    Raises:
        DataError: The rest of the input cannot be listed.
        OutputError: The output cannot be written.
        ArtifactError: The model cannot score.
        StoreError: An object store cannot be read from.
        ClusterError: Processes are lost whatever they are given.
    """
    gathered, done = Gathered(listed.shards, artifact), ledger.done()
    known, idle, read = 0, 0, 0
    left: list[Piece] = []
    witness: Piece | None = None
    while True:
        before, known = known, len(listed.shards) if left else _wait_for_more(listed, known, actors.count)
        fresh = pieces_of(listed.shards, [number for number in range(before, known) if number not in done])
        pieces = fresh or left
        if not pieces:
            if known == before:
                break
            continue
        gathered.expect(fresh)
        for batch in _batches(pieces, artifact, actors, seconds, one_by_one=not fresh):
            witness = witness or _witness(batch, pieces)
            gathered.add(batch)
            _publish(gathered, ledger)
            progress(gathered.count)
            listed.check()
            ledger.note_inputs()
        again = gathered.left_of(pieces)
        left = [*left, *again] if fresh else again
        _publish(gathered, ledger)
        progress(gathered.count)
        came = gathered.count - gathered.given_up
        idle, read = 0 if came > read else idle + (not fresh), came
        if left and idle > _IDLE_ROUNDS:
            witness = witness or _scored_before(listed, ledger, done)
            if witness is None or not _all_live(witness, artifact, actors, seconds):
                raise ClusterError(
                    "the processes that hold the model die before they have scored anything, for want of memory "
                    "perhaps. --actors asks for fewer; -v shows what they wrote"
                )
            # They live: it is these images, of which there are many side by side.
            idle = 0
    ledger.note_inputs()
    return gathered.seconds


def _witness(batch: Batch, pieces: Sequence[Piece]) -> Piece | None:
    """Return a single image that was scored, to tell later what kills: images, or the want of something."""
    scored = np.flatnonzero(batch["reason"] == "")
    if not len(scored):
        return None
    shard, task, row = (int(batch[name][scored[0]]) for name in ("shard", "task", "row"))
    piece = next(p for p in pieces if (p.shard, p.task) == (shard, task) and p.holds(row))
    return replace(piece, start=row, stop=row + 1, tries=0)


def _all_live(witness: Piece, artifact: Artifact, actors: Actors, seconds: float) -> bool:
    """Tell whether the witness is scored as often as there are processes, which may have no room for one another."""
    answers = _batches([witness] * actors.count, artifact, actors, seconds, one_by_one=True)
    return sum(1 for _ in answers) >= actors.count


def _scored_before(listed: Listed, ledger: Ledger, done: Iterable[int]) -> Piece | None:
    """Return a single image that an earlier command has scored, or None."""
    for number in sorted(done):
        (rows,) = ledger.rows(["status"], [number])
        scored = np.flatnonzero(rows["status"].to_numpy() == SCORED)
        if not len(scored):
            continue
        row = int(scored[0])
        for piece in pieces_of(listed.shards, [number]):
            if piece.holds(row):
                return replace(piece, start=row, stop=row + 1)
            row -= piece.stop or 0
    return None


def _wait_for_more(listed: Listed, known: int, wanted: int) -> int:
    """Wait until more shards are known, or all; for so many as are wanted only a while. Returns how many are known."""
    listed.wait(known + wanted, _ROUND_SECONDS)
    return listed.wait(known + 1)


def _publish(gathered: Gathered, ledger: Ledger) -> None:
    for number in gathered.whole():
        ledger.publish(number, gathered.take(number))


def _batches(
    pieces: Sequence[Piece], artifact: Artifact, actors: Actors, seconds: float, *, one_by_one: bool
) -> Iterator[Batch]:
    """Yield what comes of pieces; rows that were lost with a node are missing, as those of a lost process are."""
    stream = score_pieces(pieces, artifact, actors, seconds, one_by_one=one_by_one)
    try:
        for batch in _without_stack_traces(batches_given(stream)):
            failed = np.flatnonzero(batch["reason"] == FAILED)
            if len(failed):
                kind, message = (str(batch[name][failed[0]]) for name in ("image_id", "message"))
                raise getattr(errors, kind, ClusterError)(message)
            yield batch
    except ray.exceptions.RayError as error:
        if find_user_error(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        logger.warning("what was scored and not taken yet is read again: %s", reason)


def _without_stack_traces(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Pass batches on; where Ray Data shows errors alone, it does not tell of lost processes, since it goes on."""
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL if level == logging.ERROR else level)
    try:
        yield from batches
    finally:
        log.setLevel(level)
