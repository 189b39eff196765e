"""What a process has started, all the way down; and how it is killed."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

VICTIMS = ("worker", "driver", "all of Ray")

_AGENTS = (b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")
"""They end a minute after all others, and do nothing in that time."""


def processes() -> dict[int, tuple[int, bytes]]:
    """Return the parent and the command line of every process that has not ended."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            state, parent, *_ = (path / "stat").read_text().rpartition(")")[2].split()
            if state != "Z":
                found[int(path.name)] = int(parent), (path / "cmdline").read_bytes()
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


def kill(what: str, driver: int, worker: bytes, rng: random.Random) -> bool:
    """Send SIGKILL to one of `VICTIMS`; return false where there is none.

    Args:
        what: Which of them.
        driver: The process that has started Ray.
        worker: What stands in the command line of its workers, of which one is drawn.
        rng: Draws it.
    """
    ray = below(driver)
    workers = [pid for pid, command in ray.items() if worker in command]
    victims = {"worker": rng.sample(workers, min(1, len(workers))), "driver": [driver], "all of Ray": list(ray)}[what]
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(victims)


def wait_for_the_end(driver: subprocess.Popen[bytes], others: set[int], seconds: float) -> int:
    """Wait until a driver and all that it had started are gone; return its exit code."""
    code = driver.wait(timeout=seconds)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        left = [command for pid, (_, command) in processes().items() if pid in others]
        if all(command.startswith(_AGENTS) for command in left):
            break
        time.sleep(0.2)
    return code
