"""What fits a cluster, and what is refused before Ray would wait for it."""

from pathlib import Path

import pytest

from cluster.runtime import Cluster, check_lasting, connect
from dermaray.errors import ClusterError, ResourceError

LAPTOP = Cluster(((2.0, 0.0),))
CLUSTER = Cluster(((4.0, 1.0),) * 4)


@pytest.mark.parametrize(
    ("cluster", "workers", "gpu", "wanted", "share"),
    [
        (LAPTOP, 1, False, None, 1.0),
        (LAPTOP, 2, False, None, 0.5),
        # Half of sixteen CPUs would fit on no node of four.
        (CLUSTER, 1, False, None, 2.0),
        (CLUSTER, 8, False, None, 1.0),
        (CLUSTER, 4, True, 3.0, 3.0),
        # Half of the largest node that has a GPU, which is not the largest.
        (Cluster(((64.0, 0.0), (8.0, 1.0))), 1, True, None, 4.0),
    ],
)
def test_what_fits(cluster: Cluster, workers: int, gpu: bool, wanted: float | None, share: float) -> None:
    assert cluster.cpus_per_worker(workers, gpu, wanted) == share


@pytest.mark.parametrize(
    ("cluster", "workers", "gpu", "wanted", "message"),
    [
        (LAPTOP, 3, False, None, "at most 2"),
        (LAPTOP, 2, False, 1.0, "at most 0.5 each"),
        (LAPTOP, 1, True, None, "there are 0"),
        (CLUSTER, 1, False, 6.0, "room for 0 workers of 6 CPUs"),
        (CLUSTER, 5, False, 3.0, "room for 4 workers|less than one"),
        (CLUSTER, 5, True, None, "there are 4"),
        (Cluster(((8.0, 0.0), (1.0, 2.0))), 2, True, 2.0, "and one GPU"),
    ],
)
def test_what_does_not(cluster: Cluster, workers: int, gpu: bool, wanted: float | None, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        cluster.cpus_per_worker(workers, gpu, wanted)


def test_trials_at_a_time_need_room_together() -> None:
    assert LAPTOP.cpus_per_worker(1, False, None, concurrent=2) == 0.5
    with pytest.raises(ResourceError, match=r"num_workers=2 for each of concurrent=2 trials .* at most 2 in all"):
        LAPTOP.cpus_per_worker(2, False, None, concurrent=2)


@pytest.mark.parametrize("actors", [0, -1, 2, 16])
def test_actors_leave_a_cpu_for_reading(actors: int) -> None:
    LAPTOP.check_actors(1)
    LAPTOP.check_replicas(int(LAPTOP.cpus))
    with pytest.raises(ResourceError, match="serving takes 99 CPUs; the cluster has"):
        LAPTOP.check_replicas(99)
    with pytest.raises(ResourceError, match="Ask for 1 to 1"):
        LAPTOP.check_actors(actors)


def test_a_submitted_job_may_not_write_where_nothing_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_lasting(Path("runs/x"))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    check_lasting(Path("/shared/x"))
    with pytest.raises(ClusterError, match="would be lost"):
        check_lasting(Path("runs/x"))


def test_ray_client_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    for address in ("ray://head:10001", None):
        with (
            pytest.raises(ClusterError, match=r"Ray Client\. Received: ray://head:10001.*dermaray submit"),
            connect(address),
        ):
            pass


def test_a_ray_that_does_not_start_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nMore of it")

    monkeypatch.setattr("ray.init", fail)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    wanted = "Ray could not be started on this machine: The current node timed out during startup"
    with pytest.raises(ClusterError, match=wanted), connect(None):
        pass
