"""dermaray submit train --address http://127.0.0.1:8265 -- --config configs/case-study-balanced.yaml training.epochs=3

Runs a job on a Ray cluster: ships the checkout, starts the job there, prints its log and ends with its exit code.
Paths in the job's arguments are paths on the cluster. `--no-wait` prints the submission id instead and returns at once.
"""

import argparse
import functools
import os
import sys

from cluster.submit import EXAMPLE_ADDRESS, submit_job

JOBS = ("prepare", "audit", "train", "tune", "ensemble", "evaluate", "compare", "score")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; what the parser does not know is the job's own, and belongs into `rest`."""
    address = os.environ.get("RAY_ADDRESS", "")
    default = address if address.startswith(("http://", "https://")) else None
    parser.add_argument("job", choices=JOBS, help="the job to run; its own arguments follow, best after --")
    parser.add_argument(
        "--address",
        default=default,
        required=default is None,
        metavar="URL",
        help=f"the cluster's dashboard, as {EXAMPLE_ADDRESS} (default: RAY_ADDRESS, where that is an HTTP address)",
    )
    parser.add_argument("--no-wait", action="store_true", help="print the submission id and return")
    parser.set_defaults(rest=[])


def run(args: argparse.Namespace) -> int:
    """Submit the job and return its exit code.

    Raises:
        ClusterError: The cluster cannot be reached or refuses, or the checkout is too large to ship.
    """
    rest = args.rest[1:] if args.rest[:1] == ["--"] else args.rest
    # A log that is piped elsewhere is still followed line by line.
    echo = functools.partial(print, flush=True)
    return submit_job(args.job, rest, args.address, wait=not args.no_wait, echo=echo)


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("submit"))
