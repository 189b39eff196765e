"""Every error that a user can cause, drawn as one tree.

    DermarayError
    ├── ConfigError        a YAML file, or an override of it, that does not fit its schema
    ├── DataError          a source, a manifest or an archive that cannot be used
    │   ├── StoreError     an object store that cannot be reached
    │   │   └── CredentialsError  one that does not accept the credentials
    │   ├── LabelError     a label that its label set does not know
    │   └── LeakError      splits that are not independent of each other
    ├── ImageError         bytes that are not an image that can be scored; has a machine-readable `reason`
    ├── ArtifactError      a model folder that is missing, damaged or of another version
    ├── OutputError        an output folder that is in use or cannot be written
    ├── TrainingError      a training run that ended without a model
    └── ClusterError       a Ray cluster that cannot be reached or started
        ├── ResourceError  more workers or GPUs asked for than the cluster has
        └── AddressInUse   a port that another process holds

The command line turns each of them into one line on standard error and exit code 2. A message says what was received
and what would have been right.
"""


class DermarayError(Exception):
    """The root: whatever derives from it is the user's to mend, and is shown without a traceback."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self._message = message

    def __str__(self) -> str:
        # Ray Data adds words of its own to the arguments of what a task raises.
        return self._message


class ConfigError(DermarayError):
    """A YAML file, or an override of it, does not fit its schema."""


class DataError(DermarayError):
    """A source, a manifest or an archive cannot be used."""


class StoreError(DataError):
    """An object store cannot be reached, or does not accept the credentials: nothing in it can be read for now."""


class CredentialsError(StoreError):
    """An object store does not accept the credentials, or does not do so for an object."""


class LabelError(DataError):
    """A label is not known to the label set in use."""


class LeakError(DataError):
    """Something that belongs together is on both sides of a split."""


class ImageError(DermarayError):
    """Bytes are not an image that can be scored.

    Args:
        reason: One of `REASONS`; stable, so that it can be counted and matched by programs.
        message: The same for a person, with what was received.
    """

    REASONS = (
        *("unreadable", "empty", "too_large", "too_many_pixels", "not_an_image", "truncated", "unsupported"),
        *("timed_out", "crashed"),
    )

    def __init__(self, reason: str, message: str) -> None:
        if reason not in self.REASONS:
            raise ValueError(f"reason must be one of {self.REASONS}. Received: reason={reason!r}")
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        # The default would call __init__ with the message alone when an error travels between processes.
        return type(self), (self.reason, str(self))


class ArtifactError(DermarayError):
    """A model folder is missing, damaged or of another version."""


class OutputError(DermarayError):
    """An output folder is in use already, or cannot be written."""


class TrainingError(DermarayError):
    """A training run ended without a model."""


class ClusterError(DermarayError):
    """A Ray cluster cannot be reached or started."""


class ResourceError(ClusterError):
    """More workers or GPUs were asked for than the cluster has."""


class AddressInUse(ClusterError):
    """A port is held by another process."""


def find_user_error(error: BaseException) -> DermarayError | None:
    """Return the user's mistake that an error of Ray, of Ray Train or of a task was raised for, or None."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        # Ray makes errors that are of the class of what was raised as well, with a traceback for a message.
        if isinstance(current, DermarayError) and not isinstance(getattr(current, "cause", None), DermarayError):
            return current
        seen.add(id(current))
        # `cause` is how a Ray task's error holds the task's own, `_base_exc` how Ray Train's holds the worker's.
        wrapped = [getattr(current, name, None) for name in ("cause", "_base_exc", "__cause__", "__context__")]
        pending += [inner for inner in wrapped if isinstance(inner, BaseException)]
    return None
