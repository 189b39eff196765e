"""Ray Train's trainer, less the processes that dermaray has no use for: on two cores each costs a run's start a second.

Ray Train gives its controller an environment of its own. All that the controller starts inherits it, workers and what
reads images for them; so each such process imports Ray once to set that environment up and once more to work, and none
can be one of those that Ray keeps ready. Here the controller is told by its arguments.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.preemption_callback import PreemptionCallback
from ray.train.v2._internal.constants import HEALTH_CHECK_INTERVAL_S_ENV_VAR, get_env_vars_to_propagate
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

HEALTH_CHECK_SECONDS = 0.25
"""Ray Train takes one report of a worker at every look at it, so its own 2 s would hold up frequent checkpoints."""


_STOP_SECONDS = 20.0
"""What workers have to keep a checkpoint when the user interrupts: less than Kubernetes gives a process to end."""


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Runs a function on workers, each of which has Ray Data streams of its own.

    Args:
        arguments: Those of Ray Train's trainer.
        stop: Called when the user interrupts: asks the workers to stop, and returns whether that is worth waiting for.
    """

    def __init__(self, *arguments: Any, stop: Callable[[], bool] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stop = stop

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        # The first has a process that hands out data sets, of which Ray Train is given none here. The second has one
        # that frees the workers' resources where the controller is gone, as Ray does by itself when the driver's job
        # ends. It asks Ray's state API, which takes any Ray that it finds on the machine for its own: beside another
        # one it sees no controller, and takes the workers' resources away as soon as they have started
        # (ray-project/ray#65447 would mend that).
        callbacks = super()._create_default_callbacks()
        left_out = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in callbacks if not isinstance(callback, left_out)]

    def _initialize_and_run_controller(self, **arguments: Any) -> ray.train.Result:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=here)(_Controller)
        controller = actor.remote(get_env_vars_to_propagate(), **arguments)
        running = controller.run.remote()
        try:
            ray.get(running)
            return ray.get(controller.get_result.remote())
        except KeyboardInterrupt:
            try:
                if self._stop is not None and self._stop():
                    ray.wait([running], timeout=_STOP_SECONDS)
            finally:
                # Whatever has become of it, the user wants to leave.
                with suppress(ray.exceptions.RayError, ConnectionError):
                    ray.get(controller.abort.remote())
            raise


class _Controller(TrainController):  # type: ignore[misc]
    """Ray Train's controller, told of the driver's settings by its first argument."""

    def __init__(self, environment: dict[str, str], **arguments: Any) -> None:
        os.environ.update(environment)
        # Upstream's way to say so is a variable, which the workers would inherit.
        ray._private.worker.blocking_get_inside_async_warned = True
        super().__init__(**arguments)
        if HEALTH_CHECK_INTERVAL_S_ENV_VAR not in environment:
            self._health_check_interval_s = HEALTH_CHECK_SECONDS
        # Has a process that tells workers of a node's end, for which nothing here asks.
        callbacks: list[Any] = self._worker_group_callbacks_to_propagate
        callbacks[:] = [callback for callback in callbacks if not isinstance(callback, PreemptionCallback)]
