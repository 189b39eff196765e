"""Which device a worker takes, of those that a machine may have."""

from typing import Any

import pytest
import tensorflow as tf

from dermaray.errors import ResourceError
from dermaray.training.devices import worker_strategy


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine with as many GPUs as a test says, and what was asked of TensorFlow there."""
    asked: dict[str, Any] = {"gpus": 0}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] * asked["gpus"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: asked.update(visible=devices))
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda **options: asked.update(options=options))
    return asked


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_without_a_gpu_leaves_those_of_the_machine_alone(machine: dict[str, Any], workers: int) -> None:
    machine["gpus"] = 4
    worker_strategy(workers, use_gpu=False)
    assert machine["visible"] == []
    assert machine.get("options", {}) == {}


@pytest.mark.parametrize("gpus", [0, 2])
def test_a_gpu_that_tensorflow_does_not_see_is_not_replaced_by_the_cpu(machine: dict[str, Any], gpus: int) -> None:
    machine["gpus"] = gpus
    with pytest.raises(ResourceError, match=f"it sees {gpus}"):
        worker_strategy(1, use_gpu=True)


def test_gpus_talk_by_nccl(machine: dict[str, Any]) -> None:
    machine["gpus"] = 1
    worker_strategy(2, use_gpu=True)
    assert machine["options"]["communication_options"].implementation.name == "NCCL"
    assert "visible" not in machine


def test_one_worker_has_the_strategy_of_any_process(machine: dict[str, Any]) -> None:
    machine["gpus"] = 1
    assert worker_strategy(1, use_gpu=True) is tf.distribute.get_strategy()
