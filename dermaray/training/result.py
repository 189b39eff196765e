"""What a run has come to, written into its folder."""

import csv
from collections.abc import Sequence
from pathlib import Path

from dermaray.config import dump_config
from dermaray.data.manifest import Manifest
from dermaray.models.artifact import unseen
from dermaray.models.classifier import build_classifier
from dermaray.models.ensemble import combine
from dermaray.models.saving import Origin
from dermaray.models.weights import set_weights
from dermaray.training.finish import write_model
from dermaray.training.state import RunState
from dermaray.training.task import WorkerTask


def write_run(out: Path, task: WorkerTask, state: RunState, manifest: Manifest) -> None:
    """Write what a run has come to into an existing folder: `model/`, `config.yaml` and `history.csv`.

    The model is that of the best epoch (see `best_epoch`); its decisions are fitted on the validation images of
    the manifest.
    """
    config = task.config
    # From the configuration, as a plain model, which loads without any class of ours.
    plain = config.model.model_copy(update={"weights": "none"})
    model = build_classifier(plain, config.input, len(task.label_set.classes))
    set_weights(model, state.best)
    model = combine([model], config.views)
    provenance = {**task.provenance, "epoch": state.best_epoch}
    origin = Origin(
        config.name,
        config.version,
        config.input,
        task.label_set,
        provenance,
        task.trained_on,
        unseen(task.chosen_on, task.trained_on),
    )
    write_model(out / "model", model, origin, manifest, config)
    _write_history(out / "history.csv", state.history)
    (out / "config.yaml").write_text(dump_config(config), encoding="utf-8")


def _write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
