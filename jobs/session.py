"""The Ray that a job runs on, as its arguments say."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cluster.runtime import Cluster, connect
from jobs.console import waiting


@contextmanager
def ray_session(args: argparse.Namespace) -> Iterator[Cluster]:
    """Connect as `args.address` and `args.verbose` say, with a spinner while that takes its seconds.

    Raises:
        ClusterError: See `connect`.
    """
    with ExitStack() as stack:
        with waiting("Starting Ray" if args.address is None else f"Joining Ray at {args.address}"):
            cluster = stack.enter_context(connect(args.address, verbose=args.verbose))
        yield cluster
