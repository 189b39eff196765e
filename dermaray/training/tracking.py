"""A run as MLflow keeps it: settings, the figures of every epoch, and the model as a pyfunc that takes image bytes."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dermaray import __version__
from dermaray.config import RunConfig
from dermaray.errors import ConfigError, OutputError
from dermaray.models.artifact import Artifact, open_artifact
from dermaray.models.pyfunc import COLUMNS
from dermaray.training.state import RunState
from dermaray.training.task import WorkerTask
from dermaray.yaml_config import flat

_log = logging.getLogger(__name__)
_RUN_FILE = "mlflow.json"


@contextmanager
def tracked_run(task: WorkerTask, folder: Path, found: RunState | None) -> "Iterator[MlflowRun]":
    """Yield MLflow's run of a training run: a new one, or where that goes on the one that it began.

    Args:
        task: The run, whose `tracking.mlflow` is set.
        folder: Where it is kept which run is MLflow's, while training lasts.
        found: Where training goes on; None where it begins.

    Raises:
        ConfigError: MLflow is not installed.
        OutputError: The server or the database cannot be used.
    """
    mlflow, params = _import_mlflow(), _params(task)
    try:
        run = _start(mlflow, task, folder / _RUN_FILE, params, resumed=found is not None)
    except KeyboardInterrupt:
        _end(mlflow, "KILLED")
        raise
    # Whatever the store behind MLflow raises: a server, a database and a folder have errors of their own.
    except Exception as error:
        _end(mlflow, "FAILED")
        address = task.config.tracking.mlflow
        raise OutputError(f"MLflow at {address} cannot be used: {_first_line(error)}") from error
    run.record(found.history if found else [])
    try:
        yield run
    except KeyboardInterrupt:
        _end(mlflow, "KILLED")
        raise
    except BaseException:
        _end(mlflow, "FAILED")
        raise
    _end(mlflow, "FINISHED")


class MlflowRun:
    """A run that MLflow knows. Training does not end, nor wait, because MLflow cannot be reached.

    Args:
        mlflow: The package.
        run_id: The run, which this thread has started.
        epochs: That MLflow knows of it.
    """

    def __init__(self, mlflow: Any, run_id: str, epochs: int) -> None:
        self._mlflow, self._run_id, self._epochs = mlflow, run_id, epochs
        self._lost = False

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Steps are left to TensorBoard: each would be a request."""

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Record the figures of an epoch; once that has failed, `end` has to make up for it."""
        if not self._lost:
            self.record([{"epoch": epoch, **figures}])

    def end(self, state: RunState, model: Path) -> None:
        """Record what MLflow lacks, the figures of the best epoch, and the model."""
        self._lost = False
        self.record(state.history)
        if self._lost:
            return
        best = {f"best_{name}": value for name, value in state.best_epoch.items()}
        try:
            self._mlflow.log_metrics(best, run_id=self._run_id)
            log_pyfunc(self._mlflow, open_artifact(model))
        except Exception as error:
            self._warn(error)

    def record(self, history: Sequence[Mapping[str, float]]) -> None:
        """Record the epochs of a history that MLflow does not know yet."""
        for row in history:
            epoch = int(row["epoch"])
            if epoch <= self._epochs:
                continue
            figures = {name: value for name, value in row.items() if name != "epoch"}
            try:
                # By its id: MLflow's active run is that of the thread which began it; in another it would begin one.
                self._mlflow.log_metrics(figures, step=epoch, run_id=self._run_id)
            except Exception as error:
                self._warn(error)
                return
            self._epochs = epoch

    def _warn(self, error: Exception) -> None:
        self._lost = True
        _log.warning("MLflow does not know all of this run: %s", _first_line(error))


def log_pyfunc(mlflow: Any, artifact: Artifact) -> None:
    """Record a saved model in MLflow's current run, so that `mlflow.pyfunc.load_model` reads it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    inputs = Schema([ColSpec(DataType.binary, "image")])
    kinds: dict[str, Any] = {
        "label": DataType.string,
        "alert": DataType.boolean,
        "refer": DataType.boolean,
        "prediction_set": Array(DataType.string),
        **dict.fromkeys(("model", "model_version", "model_digest"), DataType.string),
    }
    columns = (*COLUMNS, *artifact.label_set.classes)
    outputs = Schema([ColSpec(kinds.get(name, DataType.float), name) for name in columns])
    mlflow.pyfunc.log_model(
        name="model",
        loader_module="dermaray.models.pyfunc",
        data_path=str(artifact.path),
        signature=ModelSignature(inputs, outputs),
        pip_requirements=[f"dermaray=={__version__}"],
    )


def _import_mlflow() -> Any:
    defaults = {
        # Without it MLflow reports to its makers.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Its own are 7 and 120 s: it would take a quarter of an hour to find that a server does not answer.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ImportError as error:
        raise ConfigError("tracking.mlflow needs MLflow: pip install 'dermaray[tracking]', or leave it out") from error
    # Each retry, and that there is no git, in many lines.
    for name in ("mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def _start(mlflow: Any, task: WorkerTask, file: Path, params: dict[str, str], *, resumed: bool) -> MlflowRun:
    config = task.config
    place = {"mlflow": config.tracking.mlflow, "experiment": config.tracking.experiment}
    mlflow.set_tracking_uri(config.tracking.mlflow)
    client = mlflow.MlflowClient()
    known = _known(client, file, place)
    if known is not None and resumed:
        mlflow.start_run(run_id=known)
        told = client.get_metric_history(known, "val_loss")
        return MlflowRun(mlflow, known, max((metric.step for metric in told), default=0))
    if known is not None:
        # It was begun anew.
        client.set_terminated(known, "KILLED")
    run = mlflow.start_run(experiment_id=_experiment(client, config), run_name=config.name)
    mlflow.log_params(params)
    mlflow.set_tags({"dermaray": __version__, "data": task.provenance["data"]["digest"]})
    file.write_text(json.dumps({**place, "run_id": run.info.run_id}), encoding="utf-8")
    return MlflowRun(mlflow, run.info.run_id, 0)


def _known(client: Any, file: Path, place: dict[str, str | None]) -> str | None:
    """Return the run that an earlier process has begun in the same place and nobody has deleted since."""
    from mlflow.exceptions import MlflowException

    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
        run_id = str(begun.pop("run_id"))
        if begun == place and client.get_run(run_id).info.lifecycle_stage == "active":
            return run_id
    except (FileNotFoundError, ValueError, KeyError):
        pass
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return None


def _experiment(client: Any, config: RunConfig) -> str:
    """Return the id of the experiment, made where it is missing."""
    name, address = config.tracking.experiment, str(config.tracking.mlflow)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # A database keeps no files: MLflow would have them in the working directory, wherever that is.
    place = None if address.startswith("http") else (Path(config.out).resolve().parent / "mlruns").as_uri()
    return str(client.create_experiment(name, artifact_location=place))


def _end(mlflow: Any, status: str) -> None:
    """Tell how the run has ended, if one has begun; one that goes on later is running again."""
    with suppress(Exception):
        mlflow.end_run(status)


def _params(task: WorkerTask) -> dict[str, str]:
    values = flat(task.config.model_dump(mode="json", exclude={"tracking"}))
    # MLflow has its own idea of what a name is, which that of a class may not fit.
    names = {key: re.sub(r"[^/\w.\- :]", "_", key) for key in values}
    return {names[key]: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
