"""python -m benchmarks.elastic   (about 8 minutes on 2 CPU cores)

A run on a cluster that shrinks and grows: two Ray nodes on this machine, a training worker on each. The second node is
killed while both train; when the run has gone on with one worker, another node joins. Told are the workers all along,
and the largest difference of any weight to a run of one worker that nobody disturbed, in units of the tensor's largest
value: none, since what is computed in parts of a batch does not depend on the number of workers.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cluster.runtime import connect, guard_embedded_ray

# Before Ray is imported: it keeps the nodes on the loopback interface.
guard_embedded_ray()

import ray
from ray.cluster_utils import Cluster

from benchmarks.processes import below
from benchmarks.runs import difference, step_kept, trained
from dermaray.config import RunConfig
from dermaray.data.synthetic import generate_dataset
from dermaray.training.state import RunState
from jobs.cli import main as dermaray

CPUS_PER_WORKER = 2
STEPS = 40
"""That are taken with each number of workers, at least."""


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Yield a Ray of two nodes, to which this process is connected."""
    # The first has room for a worker, and to read images.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS_PER_WORKER + 1})
    try:
        cluster.add_node(num_cpus=CPUS_PER_WORKER)
        ray.init(cluster.address, log_to_driver=False)
        with connect(None):
            yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


class Watch:
    """Looks at a run while it goes on."""

    def __init__(self, run: "Future[RunState]", unfinished: Path) -> None:
        self._run, self._unfinished = run, unfinished
        self._began = time.monotonic()

    def until(self, workers: int) -> None:
        """Wait until so many workers have taken `STEPS` steps together."""
        began: int | None = None
        while began is None or step_kept(self._unfinished) < began + STEPS:
            if self._run.done():
                self._run.result()
                raise SystemExit(f"the run ended before {workers} workers had taken {STEPS} steps")
            there = sum(b"RayTrainWorker" in command for command in below(os.getpid()).values())
            if there != workers:
                began = None
            elif began is None:
                began = step_kept(self._unfinished)
                self.say(f"{workers} workers")
            time.sleep(0.5)

    def say(self, what: str) -> None:
        """Print what happens, with the time and the last step that is kept."""
        print(f"{time.monotonic() - self._began:5.0f} s, step {step_kept(self._unfinished)}: {what}", flush=True)


def config_of(folder: Path, name: str, workers: int) -> RunConfig:
    """Return a run of some minutes."""
    return RunConfig.model_validate(
        {
            "name": name,
            "out": str(folder / name),
            "data": {"manifest": str(folder / "data"), "balance": "equal"},
            "input": {"height": 64, "width": 64},
            "model": {"options": {"filters": [16, 16, 32], "dense": 64, "batch_normalization": True}},
            "training": {"epochs": 300, "global_batch_size": 24, "partial_sums": 12},
            "checkpoint": {"every_steps": 10},
            "scaling": {"num_workers": workers, "min_workers": 1, "cpus_per_worker": CPUS_PER_WORKER},
        }
    )


def main() -> None:
    """Tell what happens; exit with 1 where it is not what should, or where the weights differ."""
    with tempfile.TemporaryDirectory() as made, two_nodes() as cluster, ThreadPoolExecutor() as threads:
        folder = Path(made)
        generate_dataset(folder / "images", 300)
        dermaray(["prepare", str(folder / "images"), "--out", str(folder / "data")])
        alone = trained(config_of(folder, "alone", 1), CPUS_PER_WORKER)
        # Nodes are Ray's to add in the main thread alone, so that it is the run that has another.
        run = threads.submit(trained, config_of(folder, "elastic", 2), CPUS_PER_WORKER)
        watch = Watch(run, folder / ".elastic.unfinished")
        watch.until(workers=2)
        watch.say("the second node is killed")
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        watch.until(workers=1)
        watch.say("another node joins")
        cluster.add_node(num_cpus=CPUS_PER_WORKER)
        watch.until(workers=2)
        apart = difference(alone.model, run.result().model)
        watch.say(f"the run has ended; largest difference to one worker: {apart:.1e}")
    sys.exit(apart > 0)


if __name__ == "__main__":
    main()
