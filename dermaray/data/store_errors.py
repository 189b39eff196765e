"""What the errors of object stores mean, as far as their texts tell, and when to ask again."""

import re
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from dermaray.errors import CredentialsError, DataError, StoreError

T = TypeVar("T")

STORE_ERRORS = (OSError, pa.ArrowException)
"""What an access to a store raises."""

UNKNOWN = "cannot be read"
"""What is said of an error that is none of a store's known ones."""

PAUSES = (1.0, 5.0)
"""Seconds before a store that could not be reached is asked again; its client has tried several times each time."""

# What in the text of an error says which mistake it is. A bucket that is missing is named first: it explains the rest.
_REASONS: tuple[tuple[str, type[DataError], str], ...] = (
    (r"NO_SUCH_BUCKET|[Bb]ucket does not exist", DataError, "there is no such bucket"),
    (
        r"ACCESS_DENIED|Forbidden|PERMISSION_DENIED|HTTP status 403|UNAUTHENTICATED",
        DataError,
        "access is denied. Check that the credentials in the environment may list and read it",
    ),
    (
        r"INVALID_ACCESS_KEY_ID|INVALID_SIGNATURE|SIGNATURE_DOES_NOT_MATCH|access token|[Cc]redential|ExpiredToken"
        # Whoever asks for the head of an object is told no more, where a session has ended.
        r"|HTTP status 40[01]|\[(AuthenticationFailed|InvalidAuthenticationInfo|ExpiredAuthenticationToken)\]",
        CredentialsError,
        "the store does not accept the credentials in the environment, or there are none",
    ),
    (r"REQUEST_TIME_TOO_SKEWED", StoreError, "the store refuses the time of this machine's clock. Set it right"),
    (
        r"NETWORK_CONNECTION|UNAVAILABLE|SLOW_DOWN|THROTTLING|INTERNAL_FAILURE|REQUEST_TIMEOUT|DEADLINE_EXCEEDED"
        r"|HTTP status (429|5\d\d)|resolve host|[Cc]onnect|[Tt]ime(d )?-?out|PayloadError"
        # Azure's words, and those of packages that say what HTTP calls it.
        r"|\[(ServerBusy|OperationTimedOut|InternalError)\]|\] (429|5\d\d) |Too Many Requests|Service Unavailable"
        r"|Bad Gateway",
        StoreError,
        "the object store cannot be reached. Check the network, and the endpoint where it is not the usual one",
    ),
)


def explained(place: str, error: Exception) -> DataError:
    """Return what an error of a store means, as far as its text tells."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, TimeoutError):
        text = "timed out"
    elif isinstance(error, OSError) and error.filename is not None:
        # Of a local file, whose name may be anything.
        return DataError(f"{place} cannot be read: {error.strerror}")
    if isinstance(error, FileNotFoundError):
        return DataError(f"{place} does not exist")
    for pattern, kind, reason in _REASONS:
        if re.search(pattern, text):
            return kind(f"{place}: {reason}")
    return DataError(f"{place} {UNKNOWN}: {text[:200]}")


def patiently(place: str, attempt: Callable[[], T]) -> T:
    """Return what comes of an attempt on a store; where that cannot be reached, of another after a while.

    Raises:
        OSError, pyarrow.ArrowException: What the last attempt raised, one of `STORE_ERRORS`.
    """
    for pause in (*PAUSES, None):
        try:
            return attempt()
        except STORE_ERRORS as error:
            if pause is None or not isinstance(explained(place, error), StoreError):
                raise
            time.sleep(pause)
    raise AssertionError
