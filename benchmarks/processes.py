"""What a process has started, all the way down."""

from contextlib import suppress
from pathlib import Path


def processes() -> dict[int, tuple[int, bytes]]:
    """Return the parent and the command line of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(path.name)] = parent, (path / "cmdline").read_bytes()
    return found


def below(root: int) -> dict[int, bytes]:
    """Return the command lines of the processes that a process has started, and of those that they have."""
    known = processes()
    found: dict[int, bytes] = {}
    grown = True
    while grown:
        new = {
            pid: command for pid, (parent, command) in known.items() if parent in {root, *found} and pid not in found
        }
        found |= new
        grown = bool(new)
    return found
