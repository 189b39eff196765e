"""After which failures of workers a run is taken up again."""

import pytest
import ray

from dermaray.training.run import _tells_of_a_loss


class UnavailableError(Exception):
    """Is called as TensorFlow's error is."""


class UnknownError(Exception):
    """Is called as TensorFlow's error is."""


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (UnavailableError("Socket closed"), True),
        (UnknownError("Could not start gRPC server"), True),
        (UnknownError("something else"), False),
        (ray.exceptions.WorkerCrashedError(), True),
        (ValueError("a mistake"), False),
    ],
)
def test_what_is_worth_another_attempt(failure: Exception, again: bool) -> None:
    assert _tells_of_a_loss(failure) is again
