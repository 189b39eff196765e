"""What must be set before any test module imports Ray, and which tests run beside which."""

from typing import TYPE_CHECKING, Any

import pytest

from cluster.quiet import hush
from cluster.runtime import guard_embedded_ray

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

_FOLDER = "tests/integration/"
_WITHOUT = ("test_submit.py", "test_upstream.py")
"""Integration tests that need no Ray, or one of their own."""

_BESIDE = ("test_data_quality.py", "test_malformed.py", "test_prepare.py", "test_readme.py", "test_real.py")
"""Integration tests that share another Ray than the rest, so that both processes are done at about the same time."""

hush()
guard_embedded_ray()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling":
    """Give all tests that share a Ray to one process. The others go by their files."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            name = file.removeprefix(_FOLDER)
            if name in (file, *_WITHOUT):
                return file
            return "another Ray" if name in _BESIDE else "a Ray"

    return Scheduler(config, log)
