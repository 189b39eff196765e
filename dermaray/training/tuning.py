"""A search on the connected Ray: Ray Tune's trials, each a training run of its own, proposed by Optuna, cut by ASHA."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from dermaray.config import RunConfig
from dermaray.errors import TrainingError
from dermaray.training.run import train
from dermaray.training.search import Range, Search
from dermaray.training.store import RunStore
from dermaray.training.task import WorkerTask
from dermaray.training.trials import Trial
from dermaray.training.unfinished import check_job, settings_of, write_job

_TUNE, _RUNS = "tune", "runs"
_METRIC = "val_loss"
_FIGURES = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")

Plan = Callable[[RunConfig], WorkerTask]


class _EveryEpoch(TuneReportCallback):  # type: ignore[misc]
    """Tell Tune of epochs, not of the checkpoints between them."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        if _METRIC in metrics[0]:
            super().after_report(run_context, metrics, checkpoint)


def begin_search(search: Search, data_digest: str, folder: Path, *, overwrite: bool) -> None:
    """Make sure that a folder is the search's own; an earlier one's is emptied where `overwrite` says so.

    Raises:
        OutputError: It keeps another search, or this one with other settings or other data.
    """
    local, base = pafs.LocalFileSystem(), settings_of(search.base)
    job = {"settings": {**search.config.model_dump(mode="json"), "base": base}, "data": data_digest}
    if (folder / _TUNE).exists() and not overwrite:
        check_job(local, str(folder), job)
        return
    for part in (_TUNE, _RUNS):
        shutil.rmtree(folder / part, ignore_errors=True)
    write_job(local, str(folder), job)


def run_trials(search: Search, folder: Path, plan: Plan) -> list[Trial]:
    """Run the trials of a search, those that an earlier process has run left out.

    Args:
        search: What to try.
        folder: Where the search keeps itself; every node sees it.
        plan: From a trial's configuration to its task.

    Returns:
        The trials in their order.

    Raises:
        TrainingError: All of them failed.
    """
    config = search.config

    def trial(values: dict[str, Any]) -> None:
        name = tune.get_context().get_trial_id()
        run = search.run_config(_decoded(values), name=name, out=str(folder / _RUNS / name))
        task = plan(run)
        with RunStore.open(run, str(task.provenance["data"]["digest"]), overwrite=False) as store:
            train(task, store, callbacks=[_EveryEpoch()], keep_frames=True)
            store.remove()

    # The workers of a trial hold CPUs; what waits for them needs none.
    trainable = tune.with_resources(trial, {"CPU": 0})
    kept = folder / _TUNE
    if tune.Tuner.can_restore(str(kept)):
        tuner = tune.Tuner.restore(str(kept), trainable, restart_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={key: _domain(values) for key, values in config.search.items()},
            tune_config=tune.TuneConfig(
                metric=_METRIC,
                mode="min",
                num_samples=config.trials,
                max_concurrent_trials=config.concurrent,
                search_alg=OptunaSearch(seed=config.seed, points_to_evaluate=_points(search)),
                scheduler=ASHAScheduler(
                    time_attr="epoch",
                    max_t=search.base.training.epochs,
                    grace_period=min(config.grace_epochs, search.base.training.epochs),
                    reduction_factor=config.reduction_factor,
                ),
            ),
            run_config=tune.RunConfig(name=kept.name, storage_path=str(folder), verbose=0),
        )
    results = tuner.fit()
    trials = [_trial(result) for result in results if result.metrics_dataframe is not None]
    if not trials:
        raise TrainingError(f"all trials failed: {results.errors[0] if results.errors else 'none has had an epoch'}")
    return trials


def _trial(result: Any) -> Trial:
    return Trial(_decoded(result.config), result.metrics_dataframe[list(_FIGURES)].to_dict("records"))


def _domain(values: Range) -> Any:
    if values.uniform is not None:
        return tune.uniform(*values.uniform)
    if values.log_uniform is not None:
        return tune.loguniform(*values.log_uniform)
    if values.integer is not None:
        return tune.randint(values.integer[0], values.integer[1] + 1)
    # Optuna knows no lists and mappings.
    return tune.choice([json.dumps(value) for value in values.choice or ()])


def _decoded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in values.items()}


def _points(search: Search) -> Sequence[dict[str, Any]] | None:
    first = search.first()
    if first is None:
        return None
    return [{key: json.dumps(value) if search.config.search[key].choice else value for key, value in first.items()}]
