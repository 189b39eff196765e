"""A search on the connected Ray: Ray Tune's trials, each a training run of its own, proposed by Optuna, cut by ASHA."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from ray import PlacementGroupID, tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.result import EXPR_RESULT_FILE
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.util.placement_group import PlacementGroup, remove_placement_group

from dermaray.config import RunConfig
from dermaray.data.frames import FrameLayout, remove_frames
from dermaray.errors import TrainingError, find_user_error
from dermaray.training.run import train
from dermaray.training.search import Range, Search
from dermaray.training.state import SCALE
from dermaray.training.store import RunStore, keeps_checkpoint
from dermaray.training.task import PLACEMENT_GROUP, Notify, WorkerTask
from dermaray.training.trials import Trial
from dermaray.training.unfinished import TRIALS, check_job, empty, refuse, settings_of, write_job

_RUNS, _BEGUN = "runs", "begun.txt"
_METRIC = "val_loss"
_FIGURES = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", SCALE)

PlanRun = Callable[[RunConfig], WorkerTask]


class _EveryEpoch(TuneReportCallback):  # type: ignore[misc]
    """Tell Tune of epochs, not of the checkpoints between them."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        if _METRIC in metrics[0]:
            super().after_report(run_context, metrics, checkpoint)


class _FreeWorkers(tune.Callback):  # type: ignore[misc]
    """Free what the workers of a trial hold that Tune has ended.

    Tune kills the trial, and with it Ray Train's controller. What Ray Train has for that case asks the dashboard, which
    an embedded Ray has not; and the next trial would wait for ever.
    """

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if group := (trial.last_result or {}).get(PLACEMENT_GROUP):
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group)))

    # The trial's process may have been killed.
    on_trial_error = on_trial_complete


class _Asha(ASHAScheduler):  # type: ignore[misc]
    """ASHA that knows, when a search goes on, what the trials that have ended had come to.

    Upstream's begins with nothing, and would go on with trials that are worse than those before.
    """

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        super().on_trial_add(tune_controller, trial)
        if trial.status == TuneTrial.TERMINATED:
            for told in _told(Path(str(trial.path))):
                self.on_trial_result(tune_controller, trial, told)


def _told(folder: Path) -> list[dict[str, Any]]:
    """Return what a trial has told Tune, as that keeps it in the trial's folder."""
    file, told = folder / EXPR_RESULT_FILE, []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        # It may have been killed while it wrote.
        with suppress(ValueError):
            told.append(json.loads(line))
    return told


def begin_search(search: Search, data_digest: str, folder: Path, *, new: bool) -> None:
    """Make sure that a folder is the search's own; an earlier one's is emptied where `new` says so.

    Raises:
        OutputError: It keeps a training run, another search, or this one with other settings or other data.
    """
    local, base = pafs.LocalFileSystem(), settings_of(search.base)
    job = {"settings": {**search.config.model_dump(mode="json"), "base": base}, "data": data_digest}
    if not new:
        if keeps_checkpoint(folder):
            refuse(folder, "a training run that has not ended")
        if (folder / TRIALS).exists():
            check_job(local, str(folder), job)
            return
    empty(folder)
    write_job(local, str(folder), job)


def _drop_trials(folder: Path) -> None:
    for part in (TRIALS, _RUNS):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / _BEGUN).unlink(missing_ok=True)


class _Named:
    """Tells which trial it is that tells."""

    def __init__(self, notify: Notify, trial: str) -> None:
        self._notify, self._trial = notify, trial

    def __call__(self, told: dict[str, Any]) -> bool | None:
        return self._notify({"trial": self._trial, **told})


def begun_trials(folder: Path) -> list[str]:
    """Return the ids of a search's trials that have begun, in this process or an earlier one, in that order."""
    file = folder / _BEGUN
    return file.read_text(encoding="utf-8").split() if file.exists() else []


def note_begun(folder: Path, trial: str) -> None:
    """Note that a trial has begun, if it has not before."""
    if trial not in begun_trials(folder):
        with (folder / _BEGUN).open("a", encoding="utf-8") as file:
            file.write(f"{trial}\n")


def run_trials(search: Search, folder: Path, plan: PlanRun, notify: Notify | None = None) -> list[Trial]:
    """Run the trials of a search, those that an earlier process has run left out.

    Args:
        search: What to try.
        folder: Where the search keeps itself; every node sees it.
        plan: From a trial's configuration to its task.
        notify: Told by the first worker of each trial, with its id as `trial`; see `train`.

    Returns:
        All trials, in their order.

    Raises:
        TrainingError: Every one has failed.
        KeyboardInterrupt: The user ended it.
    """
    # Data may be more than Ray lets a function carry.
    trainable = tune.with_parameters(_trainable(search, folder, notify), plan=plan)
    results = fit_trials(search, folder, trainable)
    trials = [_ended(result) for result in results]
    remove_frames(_layouts(search, trials, plan))
    if all(trial.problem for trial in trials):
        mistakes = [mistake for result in results if (mistake := find_user_error(result.error))]
        raise mistakes[0] if mistakes else TrainingError(f"every trial has failed: {trials[0].problem}")
    return trials


def fit_trials(search: Search, folder: Path, trainable: Any) -> list[tune.Result]:
    """Have Tune run a search's trials, from wherever it stands; return all of them in the order of their beginning.

    Those that failed are gone on with: what made them fail may have been mended.

    Args:
        search: What to try.
        folder: See `run_trials`.
        trainable: Takes a trial's values and tells Tune of its epochs; notes in `begun_trials` that it has begun.
    """
    kept = folder / TRIALS
    # The workers of a trial hold CPUs; what waits for them needs next to none.
    trainable = tune.with_resources(trainable, {"CPU": 0.01})
    # Tune would take the first Ctrl-C for the end of the search, and its new output greets however quiet it is to be.
    os.environ |= {"TUNE_DISABLE_SIGINT_HANDLER": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    if states := sorted(kept.glob("experiment_state-*.json")):
        tuner = tune.Tuner.restore(str(kept), trainable, resume_errored=True)
        # Of trials that began in the last moment before a kill Tune knows nothing; others take their places.
        state, begun = states[-1].read_text(encoding="utf-8"), begun_trials(folder)
        (folder / _BEGUN).write_text("".join(f"{trial}\n" for trial in begun if trial in state), encoding="utf-8")
    else:
        # Killed in its first seconds, it leaves what Tune cannot go on from.
        _drop_trials(folder)
        tuner = _new_tuner(search, trainable, kept)
    results = list(tuner.fit())
    order = {trial: number for number, trial in enumerate(begun_trials(folder))}
    return sorted(results, key=lambda result: order.get(Path(result.path).name, len(order)))


def _ended(result: tune.Result) -> Trial:
    table, error = result.metrics_dataframe, result.error
    history: list[dict[str, float]] = []
    if table is not None and _METRIC in table.columns:
        # A trial that was interrupted has told of some epochs twice.
        figures = [name for name in _FIGURES if name in table.columns]
        history = table[figures].drop_duplicates("epoch", keep="last").to_dict("records")
    problem = "" if error is None else str(find_user_error(error) or error).strip().splitlines()[-1]
    return Trial(_decoded(result.config or {}), history, problem)


def _trainable(search: Search, folder: Path, notify: Notify | None) -> Callable[[dict[str, Any], PlanRun], None]:
    def trial(values: dict[str, Any], plan: PlanRun) -> None:
        name = tune.get_context().get_trial_id()
        # Trials are of no use when the search has ended, and go with its folder.
        kept = {"name": name, "out": str(folder / _RUNS / name), "checkpoint.storage": None}
        note_begun(folder, name)
        run = search.run_config(_decoded(values) | kept)
        task = plan(run)
        with RunStore.open(run, str(task.provenance["data"]["digest"]), new=False) as store:
            _tell_of_known_epochs(store)
            train(task, store, notify and _Named(notify, name), callbacks=[_EveryEpoch()], keep_frames=True)

    return trial


def _tell_of_known_epochs(store: RunStore) -> None:
    """Tell Tune again of what a trial had reached when it was interrupted: it may not have heard of its last epoch."""
    found = store.latest()
    for row in found.state.history if found else []:
        tune.report(row)


def _new_tuner(search: Search, trainable: Any, kept: Path) -> tune.Tuner:
    config, epochs = search.config, search.base.training.epochs
    return tune.Tuner(
        trainable,
        param_space={key: _domain(values) for key, values in config.search.items()},
        tune_config=tune.TuneConfig(
            metric=_METRIC,
            mode="min",
            num_samples=config.trials,
            max_concurrent_trials=config.concurrent,
            search_alg=OptunaSearch(seed=config.seed, points_to_evaluate=_points(search)),
            trial_dirname_creator=_dirname,
            scheduler=_Asha(
                time_attr="epoch",
                # One more than there are: Tune would kill a trial in its last epoch, which ends by itself.
                max_t=epochs + 1,
                grace_period=min(config.grace_epochs, epochs),
                reduction_factor=config.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(name=kept.name, storage_path=str(kept.parent), verbose=0, callbacks=[_FreeWorkers()]),
    )


def _dirname(trial: TuneTrial) -> str:
    return str(trial.trial_id)


def _layouts(search: Search, trials: Sequence[Trial], plan: PlanRun) -> list[FrameLayout]:
    """Return the frames that the trials have left on the nodes; they differ where the search varies the input."""
    if search.base.ingest.cache == "none":
        return []
    inputs = {search.run_config(trial.values).input for trial in trials}
    task = plan(search.base)
    return [images.frames(spec) for spec in inputs for images in (task.train, task.val)]


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


def _points(search: Search) -> list[dict[str, Any]] | None:
    """Return what is to be tried first, as Optuna knows it."""
    first = search.first()
    return None if first is None else [{key: _encoded(search.config.search[key], first[key]) for key in first}]


def _encoded(values: Range, value: Any) -> Any:
    # The member of the list that is equal: 0 and 0.0 are, but not their texts.
    return value if values.choice is None else json.dumps(values.choice[values.choice.index(value)])
