"""The tables of a report: figures as text, each with its interval."""

from collections.abc import Mapping
from typing import Any

from dermaray.evaluation.subgroups import FIGURES

Cell = tuple[str, str]
"""A figure and its interval; a dash and nothing where they are undefined."""

COLUMNS = (
    ("Recall", "of its images", "recall"),
    ("Specificity", "of all others", "specificity"),
    ("Precision", "of its answers", "precision"),
    ("AUC", "against the rest", "auc"),
    ("Average precision", "all thresholds", "average_precision"),
)
"""Of the table of classes: title, meaning, and the figure's name."""

_AREAS = ("auc", "average_precision", "melanoma_auc")
"""Figures that are shown as decimals; the others are shares."""


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as it is shown."""
    return "–" if value is None else f"{value:.{digits}%}"


def decimal(value: float | None) -> str:
    """Return an area under a curve as it is shown."""
    return "–" if value is None else f"{value:.3f}"


def percents(interval: list[float] | None) -> str:
    """Return the interval of a share."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {interval[1]:.1%}"


def decimals(interval: list[float] | None) -> str:
    """Return the interval of an area."""
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def class_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, list[Cell]]]:
    """Return each class with its number of images and its `COLUMNS`."""
    intervals = metrics["intervals"]["per_class"]
    return [
        (name, f"{row['images']:,}", [_cell(row, intervals[name], figure) for _, _, figure in COLUMNS])
        for name, row in metrics["per_class"].items()
    ]


def specificity_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Return specificities, each with the sensitivity for melanoma; empty where the images define none."""
    if metrics["melanoma_auc"] is None:
        return []
    name = "melanoma_sensitivity_at_specificity"
    sensitivities, intervals = metrics[name], metrics["intervals"][name]
    return [(percent(float(at), 0), _cell(sensitivities, intervals, at)) for at in sensitivities]


def subgroup_rows(rows: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[Cell, bool]]]]:
    """Return each subgroup with its number of images, and each of `FIGURES` with whether it is flagged."""
    return [
        (
            value,
            f"{row['images']:,}",
            [(_cell(row, row["intervals"], figure), figure in row["flagged"]) for figure in FIGURES],
        )
        for value, row in rows.items()
    ]


def _cell(figures: Mapping[str, Any], intervals: Mapping[str, Any], name: str) -> Cell:
    if name in _AREAS:
        return decimal(figures[name]), decimals(intervals[name])
    return percent(figures[name]), percents(intervals[name])
