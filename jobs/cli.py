"""The command line: `dermaray JOB ...`, and `python -m jobs.JOB ...` for each job.

A job is a module here with `add_arguments(parser)` and `run(args) -> int`. It imports Ray, TensorFlow and whatever else
takes long inside `run`, so that `--help` answers at once.
"""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cluster.runtime import set_environment
from dermaray import __version__
from dermaray.errors import find_user_error

JOBS = {
    "demo": "run every step once, on images that it draws or on your own",
    "prepare": "turn images and their labels into a manifest with splits",
    "audit": "report what is wrong with a source or a manifest, changing nothing",
    "preview": "show what a configuration's augmentation does to images",
    "train": "train a model from a manifest and a configuration",
    "tune": "search better values for keys of a configuration",
    "ensemble": "combine models into one, or fit the decisions of one anew",
    "runs": "list what was trained, with its figures",
    "evaluate": "measure a model on a manifest, and write a report",
    "compare": "compare two models on the same images",
    "explain": "show which regions of images support a model's answer (Grad-CAM)",
    "score": "score the images of folders, archives, tables, lists or an object store, one row each",
    "serve": "serve a model over HTTP",
    "submit": "run prepare, audit, train, tune, ensemble, evaluate, compare or score on a Ray cluster",
}

USER_ERROR = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse's own puts the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}. See {self.prog} --help\n")
        sys.exit(USER_ERROR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dermaray JOB ...`; return 0, 2 for a user's mistake, 3 for leaks that were found, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in JOBS:
        return run_job(words[0], words[1:])
    parser = _Parser(prog="dermaray", description="Classifiers of dermoscopic images, from a laptop to a Ray cluster.")
    parser.add_argument("--version", action="version", version=f"dermaray {__version__}")
    jobs = parser.add_subparsers(metavar="JOB", required=True, title="jobs (dermaray JOB --help says more)")
    for name, summary in JOBS.items():
        jobs.add_parser(name, help=summary)
    parser.parse_args(words)
    raise AssertionError("unreachable: argparse ends on --help, --version and every error")


def run_job(name: str, argv: Sequence[str] | None = None) -> int:
    """Run one job; its module calls this when it is run as `python -m jobs.NAME`."""
    module = importlib.import_module(f"jobs.{name}")
    parser = _Parser(prog=f"dermaray {name}", description=JOBS[name][0].upper() + JOBS[name][1:] + ".")
    module.add_arguments(parser)
    if name == "submit":
        # What this parser does not know is meant for the job that is submitted.
        args, rest = parser.parse_known_args(argv)
        args.rest = rest
    else:
        parser.add_argument("-v", "--verbose", action="store_true", help="let Ray's and TensorFlow's messages through")
        # Intermixed: an override may stand before or after an option.
        args = parser.parse_intermixed_args(argv)
        if hasattr(args, "address"):
            # Before the job imports anything: on its way to Ray it may come by what imports Ray.
            set_environment(args.address, verbose=args.verbose)
    try:
        return int(module.run(args))
    except KeyboardInterrupt:
        sys.stderr.write(f"dermaray {name}: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.write(f"dermaray {name}: ended, for nobody reads its output any more\n")
        return USER_ERROR
    except Exception as error:
        # What a task or an actor raised arrives inside an error of Ray's.
        mistake = find_user_error(error) or _problem_of_a_path(error) or _problem_of_ray(error)
        if mistake is None:
            raise
        sys.stderr.write(f"dermaray {name}: {mistake}\n")
        return USER_ERROR
    finally:
        _flush()


def _flush() -> None:
    """Write what is left of the output; where nobody reads it, Python would complain of it at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _problem_of_a_path(error: Exception) -> str | None:
    """Return what is wrong with a path that may not be accessed, is too long or on a full disk; None if nothing is."""
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'cannot write'}: {error.strerror}. Make room, and give the same command again"
    if error.filename and error.errno in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EROFS):
        return f"{error.filename}: {error.strerror}. Give access to it, or name another path"
    return None


def _problem_of_ray(error: Exception) -> str | None:
    """Return what to say of a process that died, again and again; None where the error is something else."""
    # Not imported for this: without it there is no such error.
    ray = sys.modules.get("ray.exceptions")
    if ray is None or not isinstance(error, ray.WorkerCrashedError | ray.OutOfMemoryError | ray.ActorDiedError):
        return None
    if isinstance(error, ray.ActorDiedError) and error.actor_init_failed:
        # A defect, of which Ray has the traceback.
        return None
    reason = str(error).strip().partition("\n")[0]
    return f"a process of Ray's is lost, of an image or for want of memory perhaps: {reason}. -v shows the logs"
