"""The event files of a run that went on after a kill: every step once."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog

from dermaray.training.runlog import TensorBoard


def events(folder: Path) -> Iterator[Event]:
    """Yield the events of all files, in order; each stands between its length and two checksums."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            yield Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]


def shown(folder: Path) -> list[tuple[int, float]]:
    """Return steps and losses as TensorBoard shows them: a new start drops what stands before it, from its step on."""
    found: list[tuple[int, float]] = []
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            found = [(step, loss) for step, loss in found if step < event.step]
        found += [(event.step, value.simple_value) for value in event.summary.value if value.tag == "step/loss"]
    return found


def write(folder: Path, start: int, *steps: int) -> None:
    board = TensorBoard(folder, start)
    for step in steps:
        board.step(step, {"loss": float(step)})
    board.close()


def test_steps_that_are_taken_again_are_shown_once(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3, 4, 5)
    # Of two files that were begun in the same second the names tell no order, or are the same.
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "earlier.tfevents")
    write(tmp_path, 3, 4, 5, 6, 4, 5, 6, 7)
    assert shown(tmp_path) == [(step, float(step)) for step in range(1, 8)]
