"""A core of its own for each process that scores: what its threads hand to each other stays in that core's cache."""

import fcntl
import os
import sys
from contextlib import ExitStack, suppress
from typing import TextIO

import ray

_TOLD = "/sys/devices/system/cpu/cpu{}/topology/core_id"
"""What the kernel tells of a core: a file that all users see."""


def pin_to_core() -> TextIO | None:
    """Keep this process, with the threads that it has and will have, on a core that no other such process has.

    For one of as many as Ray has CPUs, and only where Ray was given all cores that this process may run on: elsewhere
    one that is moved to whichever core is idle does better. On a Mac, which moves them as it likes, nothing is done.

    Returns:
        What holds the core until it is closed, or the process ends; None where it was left free to move.
    """
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) > _cpus_of_this_node():
        return None
    for core in sorted(os.sched_getaffinity(0)):
        held = _hold(core)
        if held is not None:
            # A thread may have ended; and whoever may not choose cores is no worse off than before.
            for thread in os.listdir("/proc/self/task"):
                with suppress(OSError):
                    os.sched_setaffinity(int(thread), {core})
            return held
    return None


def _hold(core: int) -> TextIO | None:
    """Lock a core, as long as the file is open; None where another process has it, or the kernel tells nothing."""
    with ExitStack() as opened, suppress(OSError):
        told = opened.enter_context(open(_TOLD.format(core)))
        fcntl.flock(told, fcntl.LOCK_EX | fcntl.LOCK_NB)
        opened.pop_all()
        return told
    return None


def _cpus_of_this_node() -> float:
    here = ray.get_runtime_context().get_node_id()
    return sum(float(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["NodeID"] == here)
