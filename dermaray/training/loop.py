"""What every training worker runs: build, and for each stage compile and fit, from wherever the run stood."""

from contextlib import suppress

import keras
import tensorflow as tf

from dermaray.images.spec import InputSpec
from dermaray.models.classifier import build_classifier
from dermaray.training.callbacks import Checkpoints, Record, StoppedEarly
from dermaray.training.compile import compile_stage
from dermaray.training.devices import worker_strategy
from dermaray.training.feed import Feed
from dermaray.training.ingest import distributed_batches
from dermaray.training.multiworker import MultiWorkerModel
from dermaray.training.normalization import normalize_together
from dermaray.training.partial_sums import compute_in_parts
from dermaray.training.stages import Stage
from dermaray.training.state import RunState
from dermaray.training.task import Notify

_POLICIES = {"float32": "float32", "float64": "float64", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def train_worker(feed: Feed, state: RunState, notify: Notify | None) -> None:
    """Train this worker's part; called on every worker with the same run.

    What comes of it is the last checkpoint.

    Args:
        feed: The run, and this worker's images.
        state: What to start from.
        notify: Called by the first worker, a few times a second, with what a progress display shows.
    """
    task, config = feed.task, feed.task.config
    strategy = worker_strategy(feed.world_size, config.scaling.use_gpu)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(_POLICIES[config.training.precision])
    # That of losses and metrics, which know no policy.
    keras.config.set_floatx("float64" if config.training.precision == "float64" else "float32")
    record = Record(state, task, feed.rank, feed.world_size, notify)
    steps = task.steps_per_epoch
    checkpoints = Checkpoints(state, config.checkpoint, feed.rank, steps, lambda: record.asked_to_stop)
    model = None
    with suppress(StoppedEarly):
        for stage in task.stages:
            if state.step < stage.stop and not state.is_stale(config.training):
                spec = config.input.scaled(stage.scale)
                with strategy.scope():
                    if model is None or model.input.shape[1:] != spec.shape:
                        model = _build(feed, spec)
                    # XLA is slower than none on CPUs, and between workers it cannot compile the exchange of gradients.
                    xla = config.scaling.use_gpu and feed.world_size == 1
                    compile_stage(model, config.training, stage, jit_compile=xla)
                _fit_stage(model, stage, state, feed, [record, checkpoints])


def _build(feed: Feed, spec: InputSpec) -> keras.Model:
    """Build a model for pixels of a size, which computes on all workers what it would on one."""
    config = feed.task.config
    model = build_classifier(config.model, spec, len(feed.task.label_set.classes), MultiWorkerModel)
    parts = config.training.partial_sums
    normalize_together(model, exact=parts is not None)
    if parts is not None:
        compute_in_parts(model, parts // feed.world_size)
    return model


def _fit_stage(
    model: keras.Model, stage: Stage, state: RunState, feed: Feed, callbacks: list[keras.callbacks.Callback]
) -> None:
    """Take the steps of a stage that are not yet done: the rest of an epoch first, if one was interrupted."""
    task, strategy = feed.task, model.distribute_strategy
    spec = task.config.input.scaled(stage.scale)
    model.stop_training = False
    while state.step < stage.stop and not model.stop_training:
        with strategy.scope():
            state.restore(model, optimizer=state.step > stage.optimizer_start)
        epochs_done, within = divmod(state.step, task.steps_per_epoch)
        epochs = task.stop_after(state.step) // task.steps_per_epoch
        failures: list[Exception] = []
        train, val = feed.train(state.step), feed.validate(epochs - epochs_done)
        try:
            model.fit(
                distributed_batches(strategy, train, spec, feed.batch_size, failures),
                initial_epoch=epochs_done,
                epochs=epochs,
                steps_per_epoch=task.steps_per_epoch - within,
                validation_data=distributed_batches(strategy, val, spec, feed.batch_size, failures),
                validation_steps=task.val_plan.steps,
                callbacks=callbacks,
                verbose=0,
            )
        except tf.errors.OpError as error:
            raise (failures or [error])[0] from None
