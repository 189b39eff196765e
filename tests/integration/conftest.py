"""One embedded Ray for all integration tests, and one small data set prepared on it."""

import argparse
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.runtime import Cluster, connect
from dermaray.data.synthetic import generate_dataset
from tests.object_store import KEYS

RunJob = Callable[..., int]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        # What Ray starts has the environment that it was started in.
        for name, value in KEYS.items():
            patch.setenv(name, value)
        # Ray's own 15 lets the unit tests, which run beside these and end sooner, take the cores.
        patch.setenv("RAY_worker_niceness", "0")
        # More logical CPUs than cores, so that several workers fit beside what feeds them.
        with connect(None, num_cpus=8) as cluster:
            yield cluster


@pytest.fixture(scope="session")
def run_job(ray_cluster: Cluster) -> RunJob:
    """Run a job with its command line's words, on the shared Ray; errors are raised, not printed."""

    def run(name: str, *words: object) -> int:
        module = importlib.import_module(f"jobs.{name}")
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        args = parser.parse_intermixed_args([str(word) for word in words])
        args.verbose = False
        return int(module.run(args))

    return run


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "images"
    generate_dataset(folder, 180)
    return folder


@pytest.fixture(scope="session")
def manifest(images: Path, run_job: RunJob) -> Path:
    out = images.parent / "data"
    run_job("prepare", images, "--out", out)
    return out / "manifest.parquet"


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory, manifest: Path) -> Path:
    """A training run that takes seconds."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        f"""
name: tiny
out: {path.parent / "tiny"}
seed: 7
data: {{manifest: {manifest}, balance: equal}}
input: {{height: 32, width: 48}}
augment:
  - {{operation: flip_random, probability: 0.5}}
  - {{operation: rotate, probability: 0.7, max_left_rotation: 10, max_right_rotation: 10}}
model:
  backbone: case_study_cnn
  options: {{filters: [8, 8], dense: 16, batch_normalization: true, dropout: 0.2}}
training: {{epochs: 1, global_batch_size: 12, learning_rate: 0.001, optimizer: sgd, partial_sums: 4}}
"""
    )
    return path


@pytest.fixture(scope="session")
def model(config: Path, run_job: RunJob) -> Path:
    """A model that one worker trained: little skill, but a real one."""
    out = config.parent / "one-worker"
    run_job("train", "--config", config, f"out={out}")
    return out / "model"


@pytest.fixture(scope="module")
def fresh_serve(ray_cluster: Cluster) -> Iterator[None]:
    """End Ray Serve after a module, so that the next may start it on another port."""
    from ray import serve

    yield
    serve.shutdown()
