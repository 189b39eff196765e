"""TensorFlow and Keras in a process of dermaray's own: a worker that trains, or one that holds a model."""

import importlib
import os
import sys


def import_keras() -> None:
    """Import Keras, for TensorFlow to keep the memory of its tensors, and without what Keras imports in passing.

    Not for a process that is somebody else's: it sets environment variables, and leaves Keras without its wrappers for
    scikit-learn and its galleries. To be called before anything else imports TensorFlow.
    """
    _keep_tensor_memory()
    _import_lean_keras()


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


def _import_lean_keras() -> None:
    """Import Keras without scikit-learn and Matplotlib, which take nearly as long as Keras and TensorFlow do.

    Keras imports both where they are installed. Whoever asks for them afterwards gets them.
    """
    absent = [name for name in ("sklearn", "matplotlib") if name not in sys.modules]
    # What Python does with None here is to say that there is no such module.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        importlib.import_module("keras")
    finally:
        for name in absent:
            del sys.modules[name]
