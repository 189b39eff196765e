"""TensorFlow and Keras in a process of dermaray's own: a worker that trains, or one that holds a model."""

import ctypes
import importlib
import math
import os
import sys
from pathlib import Path
from types import ModuleType

# Options of glibc's `mallopt`, as malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8


def import_keras() -> None:
    """Import Keras, for TensorFlow to keep the memory of its tensors and to have no more threads than this process has
    CPUs, and without what Keras imports in passing.

    Not for a process that is somebody else's: it sets environment variables, and leaves Keras without its wrappers for
    scikit-learn and its galleries. To be called before anything else imports TensorFlow.
    """
    _keep_tensor_memory()
    _bound_threads()
    # They take nearly as long to import as Keras and TensorFlow do, and Keras imports both where they are installed.
    import_without("keras", "sklearn", "matplotlib")


def _keep_tensor_memory() -> None:
    """Let TensorFlow keep the memory of its tensors, on CPUs as it does on GPUs; what the user has set stands.

    By default every large tensor is taken from the operating system and given back, in every step, which costs from a
    fourth to half of its time: most where images come by a Python generator, at which TensorFlow makes `malloc` give
    memory back sooner still.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Its own limit is 64 GiB, whatever the machine has.
    os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(memory >> 20))


def _bound_threads(root: Path = Path("/sys/fs/cgroup")) -> None:
    """Let TensorFlow have as many threads as a container may use CPUs; what the user has set stands.

    By itself it has one for each CPU of the machine, and Linux stops a container's processes as a whole whose threads
    have used up its share.

    Args:
        root: Where Linux tells of that share (cgroups, of version 2 or 1).
    """
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cpus = math.ceil(int(quota) / int(period))
    # There is none: no Linux, or "max".
    except (OSError, ValueError):
        return
    if 0 < cpus < len(os.sched_getaffinity(0)):
        for pool in ("INTRAOP", "INTEROP"):
            os.environ.setdefault(f"TF_NUM_{pool}_THREADS", str(cpus))


def keep_work_memory() -> None:
    """Let `malloc` keep what it has: TensorFlow's kernels take their work space from there, anew in every step.

    For a process that does nothing but train: it gives no memory back until it ends. Large pieces are not mapped one by
    one, free memory at the end of the heap stays, and threads get no more heaps of their own, which cannot grow as the
    first can; those that are there go on being used. Nothing happens where TF_CPU_ALLOCATOR_USE_BFC is set to switch
    this off, or where the C library is not glibc.
    """
    if os.environ.get("TF_CPU_ALLOCATOR_USE_BFC") not in ("0", "false"):
        _tell_malloc({_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _ARENA_MAX: 1})


def return_memory() -> None:
    """Let `malloc` take large pieces, as batches of images are, from the operating system, and give them back at once.

    For a process that scores without end. By default glibc does so only until the first of them is freed: from then on
    it keeps them in the heaps of all threads, with holes between them, and grows. Below a megabyte this would cost
    time. Nothing happens where the C library is not glibc.
    """
    _tell_malloc({_MMAP_THRESHOLD: 1 << 20})


def _tell_malloc(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)


def import_without(name: str, *unwanted: str) -> ModuleType:
    """Import a module as if others, which it would import where they are installed, were not.

    Whoever asks for those afterwards gets them.
    """
    absent = [module for module in unwanted if module not in sys.modules]
    # What Python does with None here is to say that there is no such module.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    finally:
        for module in absent:
            del sys.modules[module]
