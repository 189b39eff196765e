"""What must be set before any test module imports Ray, and which tests run beside which."""

from typing import TYPE_CHECKING, Any

import pytest

from cluster.quiet import hush
from cluster.runtime import guard_embedded_ray

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

_WITHOUT = ("tests/integration/test_submit.py", "tests/integration/test_upstream.py")
"""Integration tests that need no Ray, or one of their own."""

hush()
guard_embedded_ray()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling":
    """Give all tests that share a Ray to one of several processes. The others' files run beside them."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "a Ray" if file.startswith("tests/integration/") and file not in _WITHOUT else file

    return Scheduler(config, log)
