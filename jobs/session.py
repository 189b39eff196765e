"""The Ray that a job runs on, as its arguments say."""

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from cluster.runtime import Cluster, connect
from jobs.console import waiting


@contextmanager
def ray_session(args: argparse.Namespace) -> Iterator[Cluster]:
    """Connect as `args.address` and `args.verbose` say, with a spinner while that takes its seconds.

    While the block runs, SIGTERM, which schedulers and Kubernetes send before they kill, is as good as Ctrl-C.

    Raises:
        ClusterError: See `connect`.
    """
    with ExitStack() as stack:
        with waiting("Starting Ray" if args.address is None else f"Joining Ray at {args.address}"):
            cluster = stack.enter_context(connect(args.address, verbose=args.verbose))
        # After Ray has set a handler of its own.
        stack.enter_context(_stopped_by_sigterm())
        yield cluster


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        # Python lets the main thread alone set handlers.
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
