"""Training runs below a folder, those that ended and those that did not, with their figures."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from dermaray.errors import ArtifactError, DataError
from dermaray.models.artifact import open_artifact
from dermaray.training.state import best_epoch
from dermaray.training.unfinished import JOB_FILE, LOCK, SUFFIX, TRIALS

EVENTS = "tensorboard"


@dataclass(frozen=True)
class RunSummary:
    """One run.

    Attributes:
        out: The folder that it wrote or will write.
        finished: Whether it has ended.
        changed: When it ended, or last did something.
        backbone: The network's name; empty where it is not known.
        epochs: Epochs done; of a run that has not ended None.
        figures: Those of its best epoch, as `history.csv` has them; of a run that has not ended empty.
    """

    out: Path
    finished: bool
    changed: datetime
    backbone: str
    epochs: int | None
    figures: dict[str, float]


def list_runs(root: Path) -> list[RunSummary]:
    """Return the runs below a folder, the latest last.

    Raises:
        DataError: There is no such folder.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is no folder. Name one that runs were written into, as configs/*.yaml write into runs/"
        )
    return sorted(_runs(root), key=lambda run: run.changed)


def _runs(root: Path) -> Iterator[RunSummary]:
    for folder, names, files in os.walk(root):
        here = Path(folder)
        if here.name.startswith(".") and here.name.endswith(SUFFIX):
            # A search keeps its trials there; where there is no lock, a run of another folder keeps its checkpoints.
            if TRIALS not in names and LOCK in files:
                yield _unfinished(here)
            names.clear()
        elif {"config.yaml", "history.csv"} <= set(files) and "model" in names:
            names.clear()
            if run := _finished(here):
                yield run


def _finished(folder: Path) -> RunSummary | None:
    try:
        artifact = open_artifact(folder)
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        created = datetime.fromisoformat(artifact.provenance["created"])
        return RunSummary(folder, True, created, str(config["model"]["backbone"]), len(history), best_epoch(history))
    # Somebody else's folder, or a damaged one, is no run.
    except (ArtifactError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def _unfinished(folder: Path) -> RunSummary:
    out = folder.parent / folder.name.removeprefix(".").removesuffix(SUFFIX)
    # Unlike other ways to walk it goes on where a folder is dropped meanwhile.
    parts = (Path(here, name) for here, _, files in os.walk(folder) for name in (".", *files))
    changed = max(map(_changed, parts), default=0.0)
    try:
        settings = json.loads((folder / "checkpoints" / JOB_FILE).read_text())["settings"]
        backbone = str(settings["model"]["backbone"])
    except (OSError, ValueError, KeyError, TypeError):
        backbone = ""
    return RunSummary(out, False, datetime.fromtimestamp(changed, UTC), backbone, None, {})


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    # A run that goes on drops its older checkpoints.
    except FileNotFoundError:
        return 0.0
