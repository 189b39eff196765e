"""One core for each process that scores."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dermaray.scoring import pinning

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")

HELD = """
import os, sys, threading
from dermaray.scoring import pinning
pinning._cpus_of_this_node, pinning._TOLD = lambda: {cpus}, {told!r}
wait = threading.Event()
other = threading.Thread(target=wait.wait, daemon=True)
other.start()
held = pinning.pin_to_core()
print(*sorted(os.sched_getaffinity(0)), *sorted(os.sched_getaffinity(other.native_id)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def told(tmp_path: Path) -> str:
    """Return where files lie, one for each core, that nobody else locks."""
    for core in os.sched_getaffinity(0):
        (tmp_path / str(core)).touch()
    return str(tmp_path / "{}")


Start = Callable[[float], "subprocess.Popen[str]"]


@pytest.fixture
def start(told: str) -> Iterator[Start]:
    """Start a process that pins itself on a node of so many CPUs, and stays until the test ends."""
    with ExitStack() as started:

        def begin(cpus: float) -> "subprocess.Popen[str]":
            command = [sys.executable, "-c", HELD.format(cpus=cpus, told=told)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield begin


def cores(process: "subprocess.Popen[str]") -> list[int]:
    """Return the cores of both its threads."""
    assert process.stdout is not None
    return [int(core) for core in process.stdout.readline().split()]


def test_each_process_has_a_core_and_gives_it_back(start: Start) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    first = start(10**6)
    assert cores(first) == [allowed[0]] * 2
    for core in allowed[1:]:
        assert cores(start(10**6)) == [core] * 2
    # There is none left, and it may use all.
    assert cores(start(10**6)) == allowed * 2
    first.kill()
    first.wait()
    assert cores(start(10**6)) == [allowed[0]] * 2


def test_a_machine_that_others_share_is_left_to_its_scheduler(start: Start) -> None:
    assert cores(start(0.5)) == sorted(os.sched_getaffinity(0)) * 2


def test_a_core_that_nothing_is_told_of_is_not_held() -> None:
    assert pinning._hold(10**6) is None
