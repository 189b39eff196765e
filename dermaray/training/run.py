"""A training run on the connected Ray, from its task to its last state."""

from collections.abc import Callable, Sequence
from typing import Any

import ray
import ray.train

from dermaray.data.frames import remove_frames
from dermaray.data.storage import is_uri
from dermaray.data.store_errors import STORE_ERRORS
from dermaray.errors import ClusterError, StoreError, TrainingError, find_user_error
from dermaray.models.own_process import import_keras, keep_work_memory
from dermaray.training.backend import TensorFlowConfig
from dermaray.training.feed import Feed
from dermaray.training.state import RunState
from dermaray.training.store import Found, RunStore, read_state
from dermaray.training.task import Notify, WorkerTask
from dermaray.training.trainer import Trainer


def train(
    task: WorkerTask,
    store: RunStore,
    notify: Notify | None = None,
    *,
    callbacks: Sequence[ray.train.UserCallback] = (),
    keep_frames: bool = False,
    stop: Callable[[], bool] | None = None,
) -> RunState:
    """Train on the connected Ray cluster, from wherever the run stands in its store to its end.

    Where workers are lost the run is taken up again from its last checkpoint, up to `scaling.max_failures` times in a
    row without progress.

    Args:
        task: What to do.
        store: What is known of the run.
        notify: Called by the first worker while it trains, with `epochs` and `steps` done and the latest figures.
        callbacks: Called by Ray Train.
        keep_frames: Leave the decoded images where they are, for another run on the same Ray.
        stop: Called when the user interrupts, before all is ended: asks the workers to stop by what they get of
            `notify`, and returns whether they are worth some seconds of waiting, in which they keep a checkpoint.

    Returns:
        The state at the end.

    Raises:
        TrainingError: Training diverged, or workers failed for good.
    """
    config, failures = task.config, 0
    task_ref = ray.put(task)
    found = store.latest()
    try:
        while True:
            try:
                _fit(_trainer(task, task_ref, store, found, notify, callbacks, stop), store)
                break
            except _WorkersLost as error:
                before, found = _step(found), store.latest()
                failures = 1 if _step(found) > before else failures + 1
                if failures > config.scaling.max_failures:
                    raise TrainingError(str(error)) from error
    finally:
        if config.ingest.cache != "none" and not keep_frames:
            remove_frames([images.frames(config.input) for images in (task.train, task.val)])
    end = store.latest()
    if end is None or not _has_ended(task, end.state):
        raise TrainingError(f"training has ended, but {store.place} lacks the checkpoint of its end. Try again")
    return end.state


def _has_ended(task: WorkerTask, state: RunState) -> bool:
    return state.step == task.train_plan.steps or state.is_stale(task.config.training)


# What Ray Train says of a worker that is gone, and TensorFlow on one that remains; by name, since the former are not
# public and the driver has no need of the latter.
_GONE = ("WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError")
_PORT_IS_TAKEN = "Could not start gRPC server"
_OTHERS_ARE_GONE = ("UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError", "InternalError")


class _WorkersLost(Exception):
    """Workers failed for no reason that the user could mend; to try again may help."""


def _step(found: Found | None) -> int:
    return 0 if found is None else found.state.step


def _trainer(
    task: WorkerTask,
    task_ref: ray.ObjectRef,
    store: RunStore,
    found: Found | None,
    notify: Notify | None,
    callbacks: Sequence[ray.train.UserCallback],
    stop: Callable[[], bool] | None,
) -> Trainer:
    """Return one attempt at a run."""
    scaling = task.config.scaling
    elastic = scaling.min_workers is not None and scaling.min_workers < scaling.num_workers
    resume = None if found is None else found.checkpoint
    return Trainer(
        # Imported on the worker: the loop's model class exists only where TensorFlow may be set up for it.
        lambda: _train_worker(task_ref, resume, notify),
        backend_config=TensorFlowConfig(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(scaling.min_workers, scaling.num_workers) if elastic else scaling.num_workers,
            use_gpu=scaling.use_gpu,
            resources_per_worker={"CPU": task.cpus_per_worker, **({"GPU": 1} if scaling.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name=store.attempt(),
            storage_path=store.path,
            # Ray would not open all of them by their URIs.
            storage_filesystem=store.filesystem if is_uri(store.place) else None,
            # A kill may hit in the midst of writing one.
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            callbacks=list(callbacks),
        ),
        stop=stop,
    )


def _fit(trainer: Trainer, store: RunStore) -> None:
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        failure = getattr(error, "controller_failure", None)
        # What Ray Train itself notes beside the checkpoints.
        if isinstance(failure, STORE_ERRORS) and not isinstance(failure, ConnectionError):
            raise store.unusable(failure) from error
        raise _explained(error) from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"Ray was lost while training: {reason}. The same command goes on where it was") from error


def _train_worker(task_ref: Any, resume: ray.train.Checkpoint | None, notify: Notify | None) -> None:
    """Train on this worker; from a later checkpoint of this attempt than the one given, where there is one."""
    task, context = ray.get(task_ref), ray.train.get_context()
    checkpoint = ray.train.get_checkpoint() or resume
    state = RunState() if checkpoint is None else read_state(checkpoint)
    feed = Feed(task, context.get_world_rank(), context.get_world_size())
    if not _has_ended(task, state):
        feed.begin(state.step)
    import_keras()
    keep_work_memory()
    from dermaray.training.loop import train_worker

    train_worker(feed, state, notify)


def _explained(error: ray.train.TrainingFailedError) -> Exception:
    """Return the user's mistake that a worker noticed, or else that workers were lost."""
    if not isinstance(error, ray.train.WorkerGroupError):
        return TrainingError(f"training failed: {str(error).strip().splitlines()[-1]}")
    failures = list(error.worker_failures.values())
    mistakes = [mistake for failure in failures if (mistake := find_user_error(failure))]
    if mistakes:
        # No mistake, and may pass.
        return _WorkersLost(str(mistakes[0])) if isinstance(mistakes[0], StoreError) else mistakes[0]
    first = str(failures[0] if failures else error).strip().splitlines()[-1]
    message = f"{len(failures)} training workers failed: {first}. -v shows their logs"
    # What a worker raised by itself, it would raise again.
    return _WorkersLost(message) if not failures or any(map(_tells_of_a_loss, failures)) else TrainingError(message)


def _tells_of_a_loss(failure: Exception) -> bool:
    """Tell whether a worker is gone, or says in TensorFlow's words that another is.

    A port that was free when the workers were told of it may be taken when TensorFlow listens there, seconds later.
    """
    if _PORT_IS_TAKEN in str(failure):
        return True
    return isinstance(failure, ray.exceptions.RayError) or type(failure).__name__ in (*_GONE, *_OTHERS_ARE_GONE)
