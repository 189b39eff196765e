"""A run as MLflow keeps it: settings, the figures of every epoch, and the model as a pyfunc that takes image bytes."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dermaray import __version__
from dermaray.errors import ConfigError, OutputError
from dermaray.models.artifact import Artifact, open_artifact
from dermaray.training.state import RunState
from dermaray.training.task import WorkerTask
from dermaray.training.unfinished import flat

_log = logging.getLogger(__name__)
_RUN_FILE = "mlflow-run"


@contextmanager
def tracked_run(task: WorkerTask, folder: Path, *, resumed: bool) -> "Iterator[MlflowRun]":
    """Yield MLflow's run of a training run: a new one, or where that goes on the one that it began.

    Args:
        task: The run, whose `tracking.mlflow` is set.
        folder: Where the id of MLflow's run is kept while the run lasts.
        resumed: Whether the run goes on.

    Raises:
        ConfigError: MLflow is not installed.
        OutputError: The server or the database cannot be used.
    """
    mlflow, tracking, file = _import_mlflow(), task.config.tracking, folder / _RUN_FILE
    try:
        mlflow.set_tracking_uri(tracking.mlflow)
        mlflow.set_experiment(tracking.experiment)
        if resumed and file.exists():
            mlflow.start_run(run_id=file.read_text())
        else:
            begun = mlflow.start_run(run_name=task.config.name)
            mlflow.log_params(_params(task))
            mlflow.set_tags({"dermaray": __version__, "data": task.provenance["data"]["digest"]})
            file.write_text(begun.info.run_id)
    # Whatever the store behind MLflow raises: a server, a database and a folder have errors of their own.
    except Exception as error:
        raise OutputError(f"MLflow at {tracking.mlflow} cannot be used: {_first_line(error)}") from error
    run = MlflowRun(mlflow, mlflow.active_run().info.run_id)
    try:
        yield run
    except KeyboardInterrupt:
        run.close("KILLED")
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


class MlflowRun:
    """A run that MLflow knows. Training does not end because MLflow cannot be reached: that is said in the log."""

    def __init__(self, mlflow: Any, run_id: str) -> None:
        self._mlflow, self._run_id = mlflow, run_id

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Steps are left to TensorBoard: each would be a request."""

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Record the figures of an epoch."""
        # By its id: MLflow's active run is that of the thread which began it, and in another it would begin a new one.
        self._try(lambda: self._mlflow.log_metrics(dict(figures), step=epoch, run_id=self._run_id))

    def end(self, state: RunState, model: Path) -> None:
        """Record the figures of the best epoch, and the model."""
        best = {f"best_{name}": value for name, value in state.best_epoch.items()}
        self._try(lambda: self._mlflow.log_metrics(best, run_id=self._run_id))
        self._try(lambda: log_pyfunc(self._mlflow, open_artifact(model)))

    def close(self, status: str) -> None:
        """Record how the run ended; one that goes on later is running again."""
        self._try(lambda: self._mlflow.end_run(status))

    def _try(self, record: Callable[[], object]) -> None:
        try:
            record()
        except Exception as error:
            _log.warning("MLflow does not know all of this run: %s", _first_line(error))


def log_pyfunc(mlflow: Any, artifact: Artifact) -> None:
    """Record a saved model in MLflow's current run, so that `mlflow.pyfunc.load_model` reads it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    classes = artifact.label_set.classes
    inputs = Schema([ColSpec(DataType.binary, "image")])
    outputs = Schema([ColSpec(DataType.string, "label"), *(ColSpec(DataType.float, name) for name in classes)])
    mlflow.pyfunc.log_model(
        name="model",
        loader_module="dermaray.models.pyfunc",
        data_path=str(artifact.path),
        signature=ModelSignature(inputs, outputs),
        pip_requirements=[f"dermaray=={__version__}"],
    )


def _import_mlflow() -> Any:
    # It asks a server of its makers home when it is imported, and takes minutes to find that another does not answer.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        import mlflow
    except ImportError as error:
        raise ConfigError("tracking.mlflow needs MLflow: pip install 'dermaray[tracking]', or leave it out") from error
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def _params(task: WorkerTask) -> dict[str, str]:
    values = flat(task.config.model_dump(mode="json", exclude={"tracking"}))
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
