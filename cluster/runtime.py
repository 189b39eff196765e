"""Ray, embedded or joined: with one flag a job runs on the laptop or on a cluster."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.quiet import hush, silent_stderr
from dermaray.errors import ClusterError, ResourceError

# Ray sets it for a job that was submitted.
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@dataclass(frozen=True)
class Cluster:
    """What the connected cluster has.

    Attributes:
        nodes: Logical CPUs and GPUs of every node that is alive.
    """

    nodes: tuple[tuple[float, float], ...]

    @property
    def cpus(self) -> float:
        """Logical CPUs of all nodes."""
        return sum(cpus for cpus, _ in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(gpus for _, gpus in self.nodes)

    def cpus_per_worker(self, num_workers: int, use_gpu: bool, wanted: float | None, *, concurrent: int = 1) -> float:
        """Check that training workers fit, and return how many logical CPUs each gets.

        Args:
            num_workers: How many workers a run has.
            use_gpu: Whether each needs a GPU.
            wanted: CPUs per worker, or None: half of the cluster's shared among them, the rest being for Ray Data.
            concurrent: How many runs train at a time.

        Raises:
            ResourceError: They do not fit. Without this check Ray would wait for the missing resources for ever.
        """
        asked = f"scaling.num_workers={num_workers}"
        if concurrent > 1:
            asked += f" for each of concurrent={concurrent} trials"
            num_workers *= concurrent
        if num_workers > self.cpus:
            raise ResourceError(
                f"{asked} is more than the cluster's {self.cpus:g} CPUs. "
                f"Ask for at most {int(self.cpus)} in all, or join a larger cluster with --address"
            )
        if use_gpu and num_workers > self.gpus:
            raise ResourceError(
                f"scaling.use_gpu with {asked} needs {num_workers} GPUs; there are "
                f"{self.gpus:g}. Set scaling.use_gpu=false, ask for fewer, or join another cluster with --address"
            )
        # A worker is on one node, however large the cluster.
        share = min(self.cpus / 2 / num_workers, self._largest_node(use_gpu) / 2) if wanted is None else wanted
        if num_workers * share > self.cpus - 1:
            raise ResourceError(
                f"{num_workers} workers with scaling.cpus_per_worker={share:g} leave less than one of the cluster's "
                f"{self.cpus:g} CPUs to read images. Ask for at most {(self.cpus - 1) / num_workers:g} each"
            )
        if self._places(share, use_gpu) < num_workers:
            raise ResourceError(
                f"the nodes have room for {self._places(share, use_gpu)} workers of {share:g} CPUs"
                f"{' and one GPU' if use_gpu else ''}; {num_workers} were asked for. The largest such node has "
                f"{self._largest_node(use_gpu):g} CPUs: set scaling.cpus_per_worker lower, or ask for fewer workers"
            )
        return share

    def check_actors(self, actors: int, spare: int = 1) -> None:
        """Check that actors of one CPU each fit.

        Args:
            actors: How many.
            spare: CPUs that must be left for the tasks that feed them.

        Raises:
            ResourceError: They do not fit.
        """
        if not 1 <= actors <= self.cpus - spare:
            reading = ", one of which must be left to read images" if spare else ""
            raise ResourceError(
                f"{actors} processes that hold the model do not fit a cluster of {self.cpus:g} CPUs{reading}. "
                f"Ask for 1 to {int(self.cpus) - spare}"
            )

    def check_replicas(self, count: int) -> None:
        """Check that so many processes of one CPU each, which serve, fit.

        Raises:
            ResourceError: They do not fit. Ray Serve would wait for the missing CPUs for ever.
        """
        if self.cpus < count:
            raise ResourceError(
                f"serving takes {count} CPUs; the cluster has {self.cpus:g}. Join a larger one with --address"
            )

    def _largest_node(self, with_gpu: bool) -> float:
        """Return the CPUs of the largest node, or of the largest that has a GPU."""
        return max((cpus for cpus, gpus in self.nodes if gpus or not with_gpu), default=0.0)

    def _places(self, share: float, use_gpu: bool) -> int:
        """Return how many workers the nodes have room for, each whole on one node."""
        rooms = (min(int(cpus / share), int(gpus)) if use_gpu else int(cpus / share) for cpus, gpus in self.nodes)
        return sum(rooms)


@contextmanager
def connect(address: str | None, *, verbose: bool = False, num_cpus: int | None = None) -> Iterator[Cluster]:
    """Join a Ray cluster, or start one in this process's keeping, and leave or stop it at the end.

    An embedded Ray has the machine's own resources, listens on loopback alone and asks for a token that only
    this process and its children know. Where Ray is connected already, that connection is used and left open.

    Args:
        address: `auto` or `HOST:PORT` to join a cluster whose node this is. None for what `RAY_ADDRESS` names (Ray sets
            it for a job that was submitted), and for an embedded Ray where it names nothing.
        verbose: Let Ray's and TensorFlow's own messages through.
        num_cpus: Logical CPUs of an embedded Ray, or None for as many as the machine has.

    Raises:
        ClusterError: No cluster answers at the address, none can be started, the address is Ray Client's, or the
            checkout is too large to be sent there.
    """
    set_environment(address, verbose=verbose)
    address = address or _ray_address()
    _refuse_ray_client(address)
    import ray

    own = not ray.is_initialized()
    if own:
        _init(address, verbose, num_cpus)
        if address is None and num_cpus is None and _inspect().cpus < 2:
            # Logical CPUs: what holds a model needs one, and the tasks that feed it another.
            ray.shutdown()
            _init(address, verbose, 2)
    try:
        _quiet_ray_data(verbose)
        yield _inspect()
    finally:
        if own:
            ray.shutdown()


def set_environment(address: str | None, *, verbose: bool = False) -> None:
    """Set what Ray and TensorFlow read when they are imported; `connect` does so, which may be too late.

    Args:
        address: See `connect`.
        verbose: See `connect`.
    """
    if not verbose:
        hush()
    if (address or _ray_address()) is None:
        guard_embedded_ray()


def check_lasting(path: Path) -> None:
    """Refuse an output that would be lost: a submitted job runs in a copy of the checkout that goes with it.

    Raises:
        ClusterError: This is a submitted job, and the path is relative.
    """
    if _SUBMITTED in os.environ and not path.is_absolute():
        raise ClusterError(f"the output {path} would be lost with the submitted job. Name an absolute path on storage")


def _inspect() -> Cluster:
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Cluster(tuple((r.get("CPU", 0.0), r.get("GPU", 0.0)) for r in resources))


def _ray_address() -> str | None:
    """Return what `RAY_ADDRESS` names, unless it is a dashboard: that takes submissions, not drivers."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if not address or address.startswith(("http://", "https://")) else address


def _refuse_ray_client(address: str | None) -> None:
    """Refuse an address by which Ray Data does not run: Ray Client knows no tasks that stream their results."""
    if (address or "").startswith("ray://"):
        raise ClusterError(
            f"jobs do not run through Ray Client. Received: {address}. Use --address auto on a node of the cluster, or "
            "send the job there: dermaray submit JOB --address http://HOST:8265 -- ..."
        )


def guard_embedded_ray() -> None:
    """Set what keeps an embedded Ray to this process and its children, unless the user has set it.

    Ray reads the first of these when it is imported; a program that imports Ray before it connects calls this before.
    """
    # The setting that keeps Ray on the loopback interface; it is named for the systems on which it is the default.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # No report of who uses it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray asks for a token wherever it starts a local cluster; without this it would keep one in the home folder.
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _init(address: str | None, verbose: bool, num_cpus: int | None) -> None:
    import logging

    import ray

    options: dict[str, object] = {"log_to_driver": verbose}
    if address is None:
        options |= {"address": "local", "include_dashboard": False, "num_cpus": num_cpus}
    else:
        options |= {"address": address, "runtime_env": _shipped_code()}
    if not verbose:
        options["logging_level"] = logging.ERROR
    try:
        with silent_stderr(verbose=verbose):
            ray.init(**options)
    # Ray raises all kinds, plain exceptions among them: that of a machine that is too busy for it to start in time.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if address is None:
            raise ClusterError(f"Ray could not be started on this machine: {reason}") from error
        raise ClusterError(
            f"no Ray cluster answers at --address {address}: {reason}. "
            "Use auto on a node of the cluster, dermaray submit from elsewhere, or leave it out for an embedded Ray"
        ) from error


def _shipped_code() -> dict[str, object]:
    """Return the runtime environment that carries this checkout along; a submitted job has brought it already.

    Raises:
        ClusterError: It is too large.
    """
    if _SUBMITTED in os.environ:
        return {}
    from cluster.submit import EXCLUDES, checkout_root, working_dir_size

    root = checkout_root()
    working_dir_size(root)
    return {"working_dir": str(root), "excludes": list(EXCLUDES)}


def _quiet_ray_data(verbose: bool) -> None:
    import logging

    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    if not verbose:
        # Since it was imported Ray shows its own warnings again.
        hush()
        for name in ("ray.data", "ray.train", "ray.serve"):
            logging.getLogger(name).setLevel(logging.ERROR)
