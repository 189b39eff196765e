"""Keep the messages of Ray and TensorFlow from the user, who can have them with `-v`."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_SETTINGS = {
    # TensorFlow: errors alone.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Ray: no banner.
    "RAY_LOGGER_LEVEL": "error",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
}


def hush() -> None:
    """Set the environment that this process and all that it starts read; what the user has set stands.

    Call it before Ray or TensorFlow is imported.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")


@contextmanager
def silent_stderr(*, verbose: bool = False) -> Iterator[None]:
    """Drop what is written to the process's standard error while the block runs.

    For starts and imports, whose C++ code greets before any setting of its log level takes effect; what goes wrong
    there is raised, not printed.
    """
    if verbose:
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
