"""What a search has come to: a table and a plot of its trials, and the best of them as a configuration."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermaray.config import dump_config
from dermaray.training.search import Range, Search
from dermaray.training.state import best_epoch, loss_order

_INK, _MUTED, _BEST, _OTHER = "#1c2430", "#667085", "#d55e00", "#0072b2"


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        values: Of the keys that are varied.
        history: The figures of every epoch that it had.
        problem: Why it failed; empty where it came to its end, or ASHA ended it.
    """

    values: dict[str, Any]
    history: list[dict[str, float]]
    problem: str = ""

    @property
    def best(self) -> dict[str, float]:
        """The figures of its best epoch; see `best_epoch`."""
        return best_epoch(self.history)


def write_search(out: Path, search: Search, trials: Sequence[Trial]) -> Trial:
    """Write `best.yaml`, `trials.csv` and `trials.png` into an existing folder; return the trial of the best epoch.

    `best.yaml` is the configuration that was improved, with the values of that trial; it writes into a folder of
    its own.

    Args:
        out: The folder.
        search: What was tried.
        trials: What came of it; one of them at least without a problem.
    """
    best = min((trial for trial in trials if not trial.problem), key=lambda trial: loss_order(trial.best))
    base = search.base
    config = search.run_config(best.values, name=f"{base.name}-tuned", out=f"{base.out.rstrip('/')}-tuned")
    (out / "best.yaml").write_text(dump_config(config), encoding="utf-8")
    with (out / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", *search.config.search, "epochs", *(f"best_{name}" for name in best.best), "problem"])
        for number, trial in enumerate(trials, start=1):
            values = [trial.values[key] for key in search.config.search]
            figures = trial.best.values() if trial.history else [""] * len(best.best)
            writer.writerow([number, *values, len(trial.history), *figures, trial.problem])
    (out / "trials.png").write_bytes(plot_trials(search.config.search, [t for t in trials if t.history], best))
    return best


def plot_trials(ranges: dict[str, Range], trials: Sequence[Trial], best: Trial) -> bytes:
    """Draw the validation loss of every trial over its epochs, and over each key that was varied.

    Args:
        ranges: The keys.
        trials: All that had an epoch.
        best: The one that stands out.

    Returns:
        A PNG file.
    """
    columns = min(3, 1 + len(ranges))
    rows = -(-(1 + len(ranges)) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
    panels = [figure.add_subplot(rows, columns, i + 1) for i in range(1 + len(ranges))]
    ordered = [*(trial for trial in trials if trial is not best), best]
    for trial in ordered:
        epochs, losses = [row["epoch"] for row in trial.history], [row["val_loss"] for row in trial.history]
        panels[0].plot(epochs, losses, **_style(trial is best), marker="o", markersize=3)
    _label(panels[0], "epoch")
    for axes, (key, values) in zip(panels[1:], ranges.items(), strict=True):
        _plot_key(axes, key, values, ordered, best)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plot_key(axes: Axes, key: str, values: Range, trials: Sequence[Trial], best: Trial) -> None:
    tried: list[Any] = [trial.values[key] for trial in trials]
    if values.choice is not None:
        names = [str(value) for value in values.choice]
        axes.set_xticks(range(len(names)), [name[:16] for name in names], rotation=30 if len(names) > 3 else 0)
        tried = [names.index(str(value)) for value in tried]
    elif values.log_uniform is not None:
        axes.set_xscale("log")
    colours = [_style(trial is best)["color"] for trial in trials]
    axes.scatter(tried, [trial.best["val_loss"] for trial in trials], c=colours, s=28)
    _label(axes, key)


def _style(best: bool) -> dict[str, Any]:
    return {"color": _BEST, "linewidth": 2.4} if best else {"color": _OTHER, "linewidth": 1.0}


def _label(axes: Axes, name: str) -> None:
    axes.set_xlabel(name, color=_INK)
    axes.set_ylabel("validation loss", color=_INK)
    axes.tick_params(labelcolor=_MUTED)
    axes.spines[["top", "right"]].set_visible(False)
