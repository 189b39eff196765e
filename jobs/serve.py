"""python -m jobs.serve [--model DIR] [--host 127.0.0.1] [--port 8000]

A model behind HTTP, until Ctrl-C: `POST /v1/predict` takes an image (the body, or a file of a multipart form), and
`GET /healthz` says that it is there.
"""

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.options import add_address, add_optional_model

APPLICATION = "serve.app:build_app"
"""The application, by the path that a cluster's configuration names too."""

APPLICATION_NAME = "dermaray"

_REPLICAS = 2
"""An ingress and a classifier, of one CPU each."""

_OWN = "dermaray.errors.ArtifactError: "
"""What stands before a message of ours in the error of a replica."""

_REQUEST_SECONDS = 30
"""After which a request is given up: clients that send a byte now and then would take all places in time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    add_optional_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="the port to listen on (default: 8000)")
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job until it is interrupted, and return its exit code."""
    from jobs.console import say
    from jobs.options import chosen_model
    from jobs.session import ray_session

    artifact = chosen_model(args)
    with ray_session(args) as cluster:
        cluster.check_replicas(_REPLICAS)
        with serving(artifact.path, args.host, args.port, verbose=args.verbose) as url:
            say(f"Serving {artifact.name} at {url}. Stop with Ctrl-C")
            say(f"Try: curl --data-binary @image.jpg {url}/v1/predict")
            threading.Event().wait()
    return 0


@contextmanager
def serving(model: Path, host: str, port: int, *, verbose: bool = False) -> Iterator[str]:
    """Run the application on the connected Ray cluster while the block runs, and yield its URL.

    Ray Serve itself stays when the block ends: an embedded Ray takes it along, and on a joined cluster it may be
    others' too.

    Raises:
        ArtifactError: There is no usable model in the folder `model`.
        AddressInUse: Another process listens there.
        ClusterError: The application did not start, the cluster has one already, or its Ray Serve listens elsewhere.
    """
    import importlib

    from ray import serve
    from ray.serve.exceptions import RayServeException

    from cluster.quiet import silent_stderr
    from dermaray.errors import ClusterError
    from jobs.console import waiting

    module, builder = APPLICATION.split(":")
    application = importlib.import_module(module)
    app = getattr(application, builder)(application.ServeArgs(model=str(model)))
    _check_free(host, port)
    try:
        try:
            with waiting("Starting the application"), silent_stderr(verbose=verbose):
                serve.start(http_options={"host": host, "port": port, "request_timeout_s": _REQUEST_SECONDS})
                serve.run(app, name=APPLICATION_NAME)
        # Another application at the same place is the second, and a machine that is too slow for Ray Serve the third.
        except (RuntimeError, RayServeException, TimeoutError) as error:
            raise ClusterError(f"the application did not start: {_reason() or _line(str(error), 0)}") from error
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        # Whoever interrupts its start means the application too; on a joined cluster it would stay.
        if listening() is not None:
            with silent_stderr(verbose=verbose):
                serve.delete(APPLICATION_NAME)


def _reason() -> str:
    """Return why a replica does not start, as the last line of its error says; empty where none tells of one."""
    from ray import serve

    try:
        application = serve.status().applications.get(APPLICATION_NAME)
    # Of a Ray Serve that is gone, which would hide the error that this is to explain.
    except Exception:
        return ""
    told = [one.message for one in application.deployments.values()] if application else []
    return next((_line(message, -1).split(_OWN, 1)[-1] for message in told if "Error" in message), "")


def _line(text: str, number: int) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or [""])[number]


def listening() -> tuple[str, int] | None:
    """Return host and port at which the connected cluster's Ray Serve listens already, or None; it keeps them."""
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host, client.http_config.port)


def _check_free(host: str, port: int) -> None:
    """Check that Ray Serve can listen there, or does, and that no other command serves by it."""
    from ray import serve

    from cluster.ports import check_port
    from dermaray.errors import ClusterError

    place = listening()
    if place is None:
        check_port(host, port)
    elif place != (host, port):
        raise ClusterError(
            f"Ray Serve runs on this cluster already, at {place[0]}:{place[1]}. Name these: --host, --port"
        )
    elif APPLICATION_NAME in serve.status().applications:
        raise ClusterError(
            f"the cluster serves a model already, at {host}:{port}. Stop that command, or where it is gone, Ray Serve: "
            "serve shutdown"
        )


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("serve"))
