"""How Ray Train sets TensorFlow up on its workers.

Ray's own `TensorflowTrainer` does the same, but its package imports TensorFlow in every process that hears of it: the
driver and the controller, seconds each. It also switches legacy Keras on.
"""

import json
import os
from dataclasses import dataclass

import ray
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig


@dataclass
class TensorFlowConfig(BackendConfig):  # type: ignore[misc]
    """Names the backend below."""

    @property
    def backend_cls(self) -> type["TensorFlowBackend"]:
        """The backend."""
        return TensorFlowBackend


class TensorFlowBackend(Backend):  # type: ignore[misc]
    """Tells each worker of the others, as `MultiWorkerMirroredStrategy` wants it: in `TF_CONFIG`."""

    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TensorFlowConfig) -> None:
        """Give every worker a port, and all of them the list."""
        addresses = worker_group.execute(_free_address)
        told = [
            worker_group.execute_single_async(rank, _set_cluster, addresses, rank) for rank in range(len(worker_group))
        ]
        ray.get(told)


def _free_address() -> str:
    host, port = get_address_and_port()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set_cluster(addresses: list[str], rank: int) -> None:
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
