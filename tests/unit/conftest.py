"""What several unit tests need: a bucket, a model's decisions, and a model's folder without a network in it."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dermaray.decisions.decisions import Decisions
from dermaray.decisions.fit import fit_decisions
from dermaray.decisions.settings import DecisionConfig
from dermaray.labels import LabelSet
from tests.object_store import KEYS, Bucket, new_bucket

FEATURES = 5


@pytest.fixture(scope="session", autouse=True)
def behind_those_that_share_a_ray() -> None:
    """Let the tests in the other process, which take longest, have the cores first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.nice(5)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with new_bucket("lesions") as made:
        yield made


@pytest.fixture
def decisions_of() -> Callable[..., Decisions]:
    """Fit decisions for a label set, on images that are drawn at random."""

    def fit(label_set: LabelSet, images: int = 400, **config: object) -> Decisions:
        rng = np.random.default_rng(0)
        classes = len(label_set.classes)
        labels = np.arange(images) % classes
        probabilities = rng.dirichlet(np.ones(classes), images)
        probabilities[np.arange(images), labels] += 0.5
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        features = rng.normal(size=(images, FEATURES))
        settings = DecisionConfig.model_validate(config)
        return fit_decisions(probabilities, features, labels, np.arange(images), label_set, settings)

    return fit
