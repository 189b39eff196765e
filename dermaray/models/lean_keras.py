"""Keras without what it imports in passing."""

import importlib
import sys


def import_lean_keras() -> None:
    """Import TensorFlow and Keras, in half the time: without scikit-learn and Matplotlib.

    Keras imports both where they are installed, for wrappers and galleries that nothing here uses: half of the seconds
    that a process which trains or scores takes to start. Whoever asks for them afterwards gets them, except through
    Keras. For processes that are dermaray's own; elsewhere somebody may want those wrappers.
    """
    absent = [name for name in ("sklearn", "matplotlib") if name not in sys.modules]
    # What Python does with None here is to say that there is no such module.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        # It imports TensorFlow.
        importlib.import_module("keras")
    finally:
        for name in absent:
            del sys.modules[name]
