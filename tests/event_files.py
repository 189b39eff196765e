"""Reads the files that TensorBoard reads."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog


def events(folder: Path) -> Iterator[Event]:
    """Yield the events of all files, in order; each stands between its length and two checksums."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            yield Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]


def shown(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Return a scalar by step as TensorBoard shows it: a new start drops what stands before it, from its step on."""
    found: list[tuple[int, float]] = []
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            found = [(step, value) for step, value in found if step < event.step]
        found += [(event.step, value.simple_value) for value in event.summary.value if value.tag == tag]
    return found
