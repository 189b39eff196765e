"""Commands that tests run in processes of their own."""

import subprocess
import time
from collections.abc import Callable
from typing import Any


def wait_until(found: Callable[[], object], process: subprocess.Popen[Any], seconds: float = 120) -> None:
    """Wait until something is there that a process is to make; fail where that ends before, or takes longer."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
