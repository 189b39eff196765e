"""What every training worker runs: build, and for each stage compile and fit, from wherever the run stood."""

from dataclasses import dataclass
from typing import Any

import keras
import ray.train
import tensorflow as tf

from dermaray.data.streams import Recipe
from dermaray.models.classifier import build_classifier
from dermaray.training.callbacks import Checkpoints, Record
from dermaray.training.ingest import distributed_batches, worker_stream
from dermaray.training.multiworker import MultiWorkerModel, normalize_together
from dermaray.training.plan import Plan
from dermaray.training.stages import Stage, compile_stage, stages
from dermaray.training.state import RunState
from dermaray.training.store import read_state
from dermaray.training.task import Notify, WorkerTask


def train_worker(task: WorkerTask, resume: ray.train.Checkpoint | None, notify: Notify | None) -> None:
    """Train this worker's part; called by Ray Train on every worker with the same task.

    What comes of it is the last checkpoint.

    Args:
        task: The run.
        resume: The state to start from; None for the beginning. A later one of this attempt is preferred.
        notify: Called by the first worker, a few times a second, with what a progress display shows.
    """
    worker = _Worker.start(task)
    config = task.config
    checkpoint = ray.train.get_checkpoint() or resume
    state = RunState() if checkpoint is None else read_state(checkpoint)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(_POLICIES[config.training.precision])
    # That of losses and metrics, which know no policy.
    keras.config.set_floatx("float64" if config.training.precision == "float64" else "float32")
    with worker.strategy.scope():
        model = build_classifier(config.model, config.input, len(task.label_set.classes), MultiWorkerModel)
        normalize_together(model)
    callbacks = [
        Record(state, task, worker.rank, worker.world_size, notify),
        Checkpoints(state, config.checkpoint, worker.rank, task.steps_per_epoch),
    ]
    for stage in stages(config.training, task.steps_per_epoch):
        if state.step < stage.stop and not state.is_stale(config.training):
            with worker.strategy.scope():
                # XLA is slower than none on CPUs, and between workers it cannot compile the exchange of gradients.
                xla = config.scaling.use_gpu and worker.world_size == 1
                compile_stage(model, config.training, stage, jit_compile=xla)
            _fit_stage(model, stage, state, worker, callbacks)


_POLICIES = {"float32": "float32", "float64": "float64", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def _fit_stage(
    model: keras.Model, stage: Stage, state: RunState, worker: "_Worker", callbacks: list[keras.callbacks.Callback]
) -> None:
    """Take the steps of a stage that are not yet done: the rest of an epoch first, if one was interrupted."""
    task, epoch_steps = worker.task, worker.task.steps_per_epoch
    model.stop_training = False
    while state.step < stage.stop and not model.stop_training:
        within = state.step % epoch_steps
        stop = state.step - within + epoch_steps if within else stage.stop
        with worker.strategy.scope():
            state.restore(model, optimizer=state.step > stage.start)
        failures: list[Exception] = []
        passes = -(-(stop - state.step) // epoch_steps)
        try:
            model.fit(
                worker.batches(task.train_plan.between(state.step, stop), "train", failures),
                initial_epoch=state.step // epoch_steps,
                epochs=stop // epoch_steps,
                steps_per_epoch=epoch_steps - within,
                validation_data=worker.batches(task.val_plan.repeated(passes), "val", failures),
                validation_steps=task.val_plan.steps,
                callbacks=callbacks,
                verbose=0,
            )
        except tf.errors.OpError as error:
            raise (failures or [error])[0] from None


@dataclass(frozen=True)
class _Worker:
    """This process among those that train."""

    task: WorkerTask
    rank: int
    world_size: int
    strategy: tf.distribute.Strategy

    @classmethod
    def start(cls, task: WorkerTask) -> "_Worker":
        context = ray.train.get_context()
        world_size = context.get_world_size()
        # Before anything else of TensorFlow: collective operations must be set up first.
        strategy = tf.distribute.MultiWorkerMirroredStrategy() if world_size > 1 else tf.distribute.get_strategy()
        return cls(task, context.get_world_rank(), world_size, strategy)

    def batches(self, plan: Plan, split: str, failures: list[Exception]) -> Any:
        """Return this worker's part of a plan, as one stream."""
        task, config, training = self.task, self.task.config, split == "train"
        local_batch = config.training.global_batch_size // self.world_size
        stream = worker_stream(
            plan.shard(self.rank, self.world_size),
            task.train if training else task.val,
            config.input,
            Recipe(config.augment if training else (), config.seed, config.augment_engine),
            batch_size=local_batch,
            world_size=self.world_size,
            reserved_cpus=self.world_size * task.cpus_per_worker,
            cached=config.ingest.cache == "local",
        )
        return distributed_batches(self.strategy, stream, config.input, local_batch, failures)
