"""Run a job of this checkout on a Ray cluster that is reached over HTTP; its nodes need the dependencies alone."""

import asyncio
import logging
import os
import shlex
import socket
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dermaray.errors import ClusterError

# In the syntax of .gitignore. The leading slash keeps `/data` from taking `dermaray/data` along, and without a trailing
# slash Ray skips the folder itself instead of walking through it. `/.*` would match the root, which Ray calls `.`, and
# nothing at all would travel. What .gitignore and .rayignore name stays here too.
EXCLUDES: tuple[str, ...] = (
    "/.?*",  # .git, .venv, every tool's cache, and .env files with their secrets
    "/benchmarks",
    "/build",
    "/data",
    "/dist",
    "/docs",
    "/k8s",
    "/runs",
    "/tests",
    "/requirements*.lock",
    "__pycache__",
    "*.egg-info",
)

# Ray itself refuses at 512 MiB (`ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE`). The package lies in the
# memory of the head node and every node unpacks a copy: data and checkpoints have no place in it.
_MIB = 1024**2
MAX_BYTES = 100 * _MIB

EXAMPLE_ADDRESS = "http://127.0.0.1:8265"
_CONNECT_SECONDS = 10.0
_RETRY_SECONDS = 2.0
_RETRIES = 15

Echo = Callable[[str], None]


def checkout_root() -> Path:
    """Return the folder that holds pyproject.toml and these packages.

    Raises:
        ClusterError: The packages were installed apart from their checkout, so there is nothing whole to ship.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        raise ClusterError(
            "jobs are submitted from a checkout that is installed in place (pip install -e .). "
            f"Received: {root}, which has no pyproject.toml"
        )
    return root


def shipped_files(root: Path) -> dict[Path, int]:
    """Return what Ray would ship of a checkout: each file, relative to it, with its size in bytes.

    Ray's own walk and matcher decide, so that what is counted is what is shipped; Ray packs without compression.
    """
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    paths: list[Path] = []
    patterns = [*get_runtime_env_default_excludes(), *EXCLUDES]
    git = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    # Ray's own logger would tell of every ignore file.
    logger = logging.getLogger(__name__)
    _dir_travel(root, [_get_excludes(root, patterns)], paths.append, include_gitignore=git, logger=logger)
    return {path.relative_to(root): path.stat().st_size for path in paths if path.is_file()}


def working_dir_size(root: Path) -> int:
    """Return how many bytes of a checkout would be shipped.

    Raises:
        ClusterError: They are more than `MAX_BYTES`; the message names the largest files.
    """
    sizes = shipped_files(root)
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = sorted(sizes.items(), key=lambda item: item[1], reverse=True)[:5]
        listing = ", ".join(f"{path.as_posix()} ({size / _MIB:.1f} MiB)" for path, size in largest)
        raise ClusterError(
            f"{root} would ship {total / _MIB:.1f} MiB; the limit is {MAX_BYTES // _MIB} MiB. Largest: {listing}. "
            "Move them to storage that the cluster mounts, or name them in .rayignore"
        )
    return total


def submit_job(job: str, arguments: Sequence[str], address: str, *, wait: bool = True, echo: Echo) -> int:
    """Ship the checkout, run `python -m jobs.<job> ... --address auto` on the cluster and follow its log.

    Token authentication is Ray's own: `RAY_AUTH_MODE=token` with `RAY_AUTH_TOKEN` or `RAY_AUTH_TOKEN_PATH`.

    Args:
        job: A module of the package `jobs`.
        arguments: The job's own arguments; paths in them are paths on the cluster.
        address: The HTTP address of the cluster's dashboard.
        wait: Follow the log until the job ends; otherwise echo the submission id and return.
        echo: Receives one line of text at a time, without its line break.

    Returns:
        The exit code of the job: 1 for one that was stopped or never started, 128 + n for one killed by signal n.

    Raises:
        ClusterError: The address is malformed, not reached or refuses; the checkout is too large; no such job.
        KeyboardInterrupt: Following was interrupted. The job goes on.
    """
    root = checkout_root()
    if not job.isidentifier() or not (root / "jobs" / f"{job}.py").is_file():
        raise ClusterError(f"jobs are modules of the package jobs, as train or score. Received: {job!r}")
    working_dir_size(root)
    command = shlex.join(["python", "-m", f"jobs.{job}", *arguments, "--address", "auto"])
    with _asking(address):
        _check_address(address)
        client = _client(address)
        runtime_env = {"working_dir": str(root), "excludes": list(EXCLUDES)}
        submission = str(client.submit_job(entrypoint=command, runtime_env=runtime_env))
    if not wait:
        echo(submission)
        return 0
    echo(f"{submission} submitted to {address}")
    try:
        with _asking(address):
            return _exit_code(_follow(client, submission, echo), echo)
    except (KeyboardInterrupt, BrokenPipeError) as error:
        goes_on = f"{submission} goes on. Stop it with: ray job stop {submission} --address {address}"
        if isinstance(error, BrokenPipeError):
            raise ClusterError(f"nobody reads the log any more. {goes_on}") from error
        echo(goes_on)
        raise


def _check_address(address: str) -> None:
    """Find out in seconds what Ray's client would find out after minutes; OSError where nothing listens."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"--address takes a dashboard's HTTP address, as {EXAMPLE_ADDRESS}. Received: {address!r}")
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()


def _client(address: str) -> Any:
    """Connect to this address; Ray's client would have either variable overrule it."""
    from ray.job_submission import JobSubmissionClient

    kept = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        return JobSubmissionClient(address)
    finally:
        os.environ.update(kept)


@contextmanager
def _asking(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into one line, and keep it from telling of every ignore file and closed socket."""
    from ray.exceptions import AuthenticationError

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except BrokenPipeError:
        raise  # Whoever read our output has gone; the cluster has not.
    except AuthenticationError as error:
        raise ClusterError(
            f"{address} gives no access: {_reason(error)}. Set RAY_AUTH_MODE=token and the cluster's token in "
            "RAY_AUTH_TOKEN, or the path of a file that holds it in RAY_AUTH_TOKEN_PATH"
        ) from error
    except OSError as error:  # What requests raises is one, too.
        reason = _reason(error)
        raise ClusterError(f"no Ray dashboard answers at {address} ({reason}). Example: {EXAMPLE_ADDRESS}") from error
    except (RuntimeError, ValueError) as error:
        raise ClusterError(f"{address} does not take the job: {_reason(error)}") from error
    finally:
        logging.disable(before)


def _follow(client: Any, submission: str, echo: Echo) -> Any:
    """Echo the log until the job has ended; where its stream breaks off, what is missing is asked for."""
    told = failures = 0

    def tell(number: int, line: str) -> None:
        nonlocal told
        if number > told:
            told = number
            echo(line)

    while True:
        try:
            streamed = _stream(client, submission, tell)
            info = client.get_job_info(submission)
            ended = info.status.is_terminal()
            # A stream ends, too, where the head has lost the node that keeps the log.
            if ended or not streamed:
                *lines, rest = client.get_job_logs(submission).split("\n")
                for number, line in enumerate([*lines, rest] if ended and rest else lines, start=1):
                    tell(number, line)
            if ended:
                return info
            failures = 0
        except BrokenPipeError:
            raise
        except (OSError, RuntimeError) as error:
            failures += 1
            if failures > _RETRIES:
                ask = f"ray job status {submission} --address {client.get_address()}"
                raise ClusterError(f"lost the cluster ({_reason(error)}). Has the job ended? {ask}") from error
        time.sleep(_RETRY_SECONDS)


def _stream(client: Any, submission: str, tell: Callable[[int, str], None]) -> bool:
    """Tell the lines of the log, by their numbers, as they come; return whether they came to an end.

    A proxy on the way may end every stream on which nothing was said for a minute, and Ray's client takes none for
    streams: one that breaks off is no failure yet.
    """

    async def follow() -> None:
        number = 0
        async for line in _lines(client, submission):
            number += 1
            tell(number, line)

    try:
        asyncio.run(follow())
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError):
        return False
    return True


async def _lines(client: Any, submission: str) -> AsyncIterator[str]:
    """Cut the log into lines. Ray sends it from its start at every call."""
    import aiohttp

    rest = ""
    try:
        async for text in client.tail_job_logs(submission):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                yield line
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error
    if rest:
        yield rest


def _exit_code(info: Any, echo: Echo) -> int:
    code = info.driver_exit_code
    if code is None or info.status == "STOPPED":
        # The log of a job that never started says nothing; Ray's own message does.
        echo(f"{info.submission_id} {info.status.lower()}: {info.message or 'Ray gives no reason'}")
        return 0 if info.status == "SUCCEEDED" else 1
    return int(code) if code >= 0 else 128 - int(code)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The dashboard answers with its own traceback when it fails.
    return textwrap.shorten(lines[-1] if "Traceback" in lines[0] else lines[0], 160, placeholder=" ...")
