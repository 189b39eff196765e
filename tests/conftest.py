"""What must be set before any test module imports Ray, and which tests run beside which."""

from typing import TYPE_CHECKING, Any

import pytest

from cluster.quiet import hush
from cluster.runtime import guard_embedded_ray

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

hush()
guard_embedded_ray()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling":
    """Give all integration tests to one of several processes: they share a Ray. The others' files run beside them."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "integration" if file.startswith("tests/integration/") else file

    return Scheduler(config, log)
