"""One core for each process that scores."""

import os
import subprocess
import sys
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


def start(told: str, cpus: float) -> "subprocess.Popen[str]":
    """Start a process that pins itself on a node of so many CPUs, and stays until it is told to end."""
    command = [sys.executable, "-c", HELD.format(cpus=cpus, told=told)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def cores(process: "subprocess.Popen[str]") -> list[int]:
    """Return the cores of both its threads."""
    assert process.stdout is not None
    return [int(core) for core in process.stdout.readline().split()]


def test_each_process_has_a_core_and_gives_it_back(told: str):
    allowed, found = sorted(os.sched_getaffinity(0)), []
    processes = []
    for _ in range(len(allowed) + 1):
        processes.append(start(told, 10**6))
        found.append(cores(processes[-1]))
    # One after the other; the last has no core left, and may use all.
    assert found == [*([core, core] for core in allowed), allowed * 2]
    for process in processes:
        process.kill()
        process.wait()
    last = start(told, 10**6)
    assert cores(last) == [allowed[0]] * 2
    last.kill()
    last.wait()


def test_a_machine_that_others_share_is_left_to_its_scheduler(told: str):
    process = start(told, 0.5)
    assert cores(process) == sorted(os.sched_getaffinity(0)) * 2
    process.kill()
    process.wait()


def test_a_core_that_nothing_is_told_of_is_not_held():
    assert pinning._hold(10**6) is None
