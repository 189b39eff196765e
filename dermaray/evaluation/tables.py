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

HEADLINES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "macro_auc": "Mean AUC over classes",
    "melanoma_auc": "Melanoma AUC",
    "melanoma_partial_auc": "Melanoma partial AUC",
    "brier": "Brier score",
    "ece": "Calibration error",
}
"""Figures of all images, with their titles."""

SUBGROUP_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "melanoma_auc": "Melanoma AUC",
}
"""Of the figures of a subgroup."""

_DECISIONS = {
    "alert_sensitivity": "Melanomas with an alert, each lesion or patient once",
    "alert_sensitivity_of_images": "Images of melanoma with an alert",
    "alert_specificity": "Other images without one",
    "alerts": "Images with an alert",
    "alert_or_refer": "Images with an alert or to be referred",
    "melanomas_with_neither": "Melanomas with neither, each lesion or patient once",
    "coverage": "Lesions whose prediction set holds the diagnosis",
    "decisive": "Sets that name one diagnosis",
    "empty": "Sets that name none",
    "set_size": "Diagnoses in a set, on average",
    "strange": "Images unlike those that the model knows",
    "referred": "Images to be referred",
    "kept_accuracy": "Accuracy on images not referred",
    "kept_balanced_accuracy": "Balanced accuracy on images not referred",
}

_AREAS = ("auc", "average_precision", "macro_auc", "melanoma_auc", "melanoma_partial_auc", "brier", "ece")
"""Figures that are shown as decimals; the others are shares."""


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as it is shown."""
    return "–" if value is None else f"{value:.{digits}%}"


def decimal(value: float | None) -> str:
    """Return an area under a curve as it is shown."""
    return "–" if value is None else f"{value:.3f}"


def signed(difference: float) -> str:
    """Return a difference as it is shown."""
    return f"{difference:+.3f}".replace("-", "−")


def signed_interval(interval: list[float] | None) -> str:
    """Return the interval of a difference."""
    return "" if interval is None else f"{signed(interval[0])} to {signed(interval[1])}"


def percents(interval: list[float] | None) -> str:
    """Return the interval of a share."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {interval[1]:.1%}"


def decimals(interval: list[float] | None) -> str:
    """Return the interval of an area."""
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def headline_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Return the figures of all classes, and those of melanoma where the images define them."""
    least = metrics["min_tpr"]
    # Its scale is that of no other area.
    scale = {"melanoma_partial_auc": f" above {percent(least, 0)} sensitivity ({decimal(1 - least)} is best)"}
    shown = [name for name in HEADLINES if metrics[name] is not None]
    return [(HEADLINES[name] + scale.get(name, ""), _cell(metrics, metrics["intervals"], name)) for name in shown]


def further_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Cell, str]]:
    """Return the figures of all images that are no shares, those that the images define: title, figure, meaning."""
    least = metrics["min_tpr"]
    meanings = {
        "melanoma_partial_auc": f"The area under melanoma's curve above a sensitivity of {percent(least, 0)}, as the "
        f"ISIC 2024 challenge counts it: {decimal(1 - least)} is best, a coin toss has {decimal((1 - least) ** 2 / 2)}",
        "ece": "How far the probability of an answer lies from the share of such answers that are right: 0 is best",
        "brier": "The squared distance between probabilities and truth, summed over the classes: 0 is best, 2 is worst",
    }
    shown = [name for name in meanings if metrics[name] is not None]
    return [(HEADLINES[name], _cell(metrics, metrics["intervals"], name), meanings[name]) for name in shown]


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


def subgroup_rows(rows: Mapping[str, Any]) -> list[tuple[str, str, str, list[tuple[Cell, str]]]]:
    """Return each subgroup with its numbers of images and melanomas, and each of `FIGURES` with its mark."""

    def mark(row: Mapping[str, Any], figure: str) -> str:
        if figure not in row["flagged"]:
            return ""
        return "low" if figure in row["beyond_chance"] else "low?"

    return [
        (
            value,
            f"{row['images']:,}",
            f"{row['melanomas']:,}",
            [(_cell(row, row["intervals"], figure), mark(row, figure)) for figure in FIGURES],
        )
        for value, row in rows.items()
    ]


def decision_rows(decisions: Mapping[str, Any]) -> list[tuple[str, Cell, str]]:
    """Return what decisions come to: title, figure, and what was promised at least, or nothing."""
    promised = {"alert_sensitivity": decisions["promised"]["alert_sensitivity"]}
    return [
        (title, _cell(decisions, decisions["intervals"], name), percent(promised[name]) if name in promised else "")
        for name, title in _DECISIONS.items()
        if name in decisions
    ]


def coverage_rows(decisions: Mapping[str, Any]) -> list[tuple[str, Cell, str]]:
    """Return of each class how many of its images have it in their prediction set, and what was promised at least."""
    measured, intervals = decisions["coverage_of"], decisions["intervals"]["coverage_of"]
    promised = decisions["promised"]["coverage"]
    return [(name, _cell(measured, intervals, name), percent(promised[name])) for name in measured]


def referral_rows(decisions: Mapping[str, Any]) -> list[tuple[str, Cell, Cell]]:
    """Return shares of the images that are referred, and accuracy and balanced accuracy of the others."""
    rows = []
    for share in decisions["rest_accuracy"]:
        accuracy, balanced = (
            _cell(decisions[name], decisions["intervals"][name], share)
            for name in ("rest_accuracy", "rest_balanced_accuracy")
        )
        rows.append((percent(float(share), 0), accuracy, balanced))
    return rows


def _cell(figures: Mapping[str, Any], intervals: Mapping[str, Any], name: str) -> Cell:
    if name in _AREAS:
        return decimal(figures[name]), decimals(intervals[name])
    if name == "set_size":
        interval = intervals[name]
        return f"{figures[name]:.2f}", f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else ""
    return percent(figures[name]), percents(intervals[name])
