"""The plots of a report, each as the bytes of a PNG file.

They are drawn through `matplotlib.figure.Figure`, never pyplot: no window, no current figure and no settings that
outlive a call. Colours are those of Okabe & Ito (2008, "Color Universal Design"), told apart with any colour vision.
"""

import io
import textwrap
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from scipy.stats import binomtest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from dermaray.decisions.arrays import FloatArray, IntArray
from dermaray.evaluation.metrics import CALIBRATION_BINS, calibration_bins, confidences
from dermaray.labels import LabelSet

INK, MUTED, HAIRLINE = "#1c2430", "#667085", "#e3e7ed"
VERMILION, BLUE = "#d55e00", "#0072b2"

_COLOURS = (BLUE, "#cc79a7", "#009e73", "#e69f00", "#56b4e9")
_GREYS = ("#7a8494", "#aab2bf")
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))
_COUNTS = LinearSegmentedColormap.from_list("counts", ["#ffffff", "#cfe3f1", "#5aa2cf", "#0072b2", "#00436b"])

# Beyond this many classes the counts would overlap, and colour alone speaks.
_MAX_CLASSES_WITH_COUNTS = 20


def plot_confusion_matrix(metrics: dict[str, Any], label_set: LabelSet) -> bytes:
    """Draw the confusion matrix: counts as numbers, each row's shares as colour.

    Args:
        metrics: What `compute_metrics` returned.
        label_set: The classes that were measured; malignant ones are named in bold.

    Returns:
        A PNG file.
    """
    counts = np.asarray(metrics["confusion_matrix"]["rows_are_truth_columns_are_predictions"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.2, 0.66 * len(counts))
    figure, axes = _figure(side + 2.9, side + 1.5)
    image = axes.imshow(shares, cmap=_COUNTS, vmin=0, vmax=1)
    names = [_wrapped(name) for name in label_set.classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="Predicted class", ylabel="True class")
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        _embolden(ticks, [name in label_set.malignant for name in label_set.classes])
    _draw_grid(axes, len(names))
    if len(names) <= _MAX_CLASSES_WITH_COUNTS:
        _write_counts(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03, format=PercentFormatter(1, decimals=0))
    bar.set_label("Share of the true class", color=MUTED)
    bar.ax.tick_params(length=0, labelcolor=MUTED)
    bar.outline.set_visible(False)
    return _png(figure)


def plot_roc_curves(probabilities: FloatArray, labels: IntArray, label_set: LabelSet) -> bytes:
    """Draw each class's receiver operating characteristic against the rest, malignant classes in colour.

    Args:
        probabilities: floating [N, C], 0 to 1, columns in the order of `label_set.classes`.
        labels: integer [N], 0 to C - 1.
        label_set: The C classes. A class without a curve, for want of images in it or outside it, is left out.

    Returns:
        A PNG file.
    """
    figure, axes = _tall_figure(label_set)
    lines = axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), label="chance  0.500")
    for name, is_class, scores, style in _against_the_rest(probabilities, labels, label_set):
        false_positives, true_positives, _ = roc_curve(is_class, scores)
        text = f"{_wrapped(name, 30)}  {auc(false_positives, true_positives):.3f}"
        lines += axes.plot(false_positives, true_positives, label=text, **style)
    axes.set_xlabel("False-positive rate (1 \N{MINUS SIGN} specificity)")
    axes.set_ylabel("True-positive rate (sensitivity)")
    _add_legend(figure, lines, "Class and AUC")
    return _png(figure)


def plot_precision_recall_curves(probabilities: FloatArray, labels: IntArray, label_set: LabelSet) -> bytes:
    """Draw each class's precision against its recall at every threshold; see `plot_roc_curves`."""
    figure, axes = _tall_figure(label_set)
    lines: list[Line2D] = []
    for name, is_class, scores, style in _against_the_rest(probabilities, labels, label_set):
        precisions, recalls, _ = precision_recall_curve(is_class, scores)
        text = f"{_wrapped(name, 30)}  {average_precision_score(is_class, scores):.3f}"
        lines += axes.step(recalls, precisions, where="post", label=text, **style)
    axes.set_xlabel("Recall (sensitivity)")
    axes.set_ylabel("Precision")
    _add_legend(figure, lines, "Class and average precision")
    return _png(figure)


def plot_reliability(probabilities: FloatArray, labels: IntArray, predicted: IntArray) -> bytes:
    """Draw how often the answer is right for how sure the model is, and below how often it is that sure.

    Args:
        probabilities: floating [N, C], 0 to 1.
        labels: integer [N], 0 to C - 1.
        predicted: The answers, integer [N], 0 to C - 1.

    Returns:
        A PNG file.
    """
    confidence, right = confidences(probabilities, predicted), predicted == labels
    bins = calibration_bins(confidence)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = np.flatnonzero(counts)
    sure = np.bincount(bins, confidence)[used] / counts[used]
    found = np.bincount(bins, right)[used].astype(int)
    shares = found / counts[used]
    spans = [binomtest(k, n).proportion_ci(method="wilson") for k, n in zip(found, counts[used], strict=True)]
    figure = _blank(6.6, 6.6)
    axes, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    for part in (axes, below):
        _style(part)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    lengths = np.abs(np.array(spans).T - shares)
    axes.errorbar(sure, shares, yerr=lengths, fmt="o-", color=BLUE, ecolor="#9fb3c8", linewidth=1.4, markersize=5)
    axes.set(xlim=(0, 1), ylim=(-0.01, 1.01))
    axes.set_ylabel("Share of answers that are right")
    _percent(axes, "both")
    middles = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
    below.bar(middles, counts, width=0.9 / CALIBRATION_BINS, color="#9fb3c8")
    below.set_xlabel("Probability of the answer")
    below.set_ylabel("Images")
    return _png(figure)


def plot_recall(metrics: dict[str, Any], label_set: LabelSet) -> bytes:
    """Draw the recall of each class as a bar, highest first, with the number of images it rests on.

    Args:
        metrics: What `compute_metrics` returned. Classes without images are left out.
        label_set: The classes that were measured; malignant ones are drawn in vermilion.

    Returns:
        A PNG file.
    """
    rows = {name: row for name, row in metrics["per_class"].items() if row["recall"] is not None}
    names = sorted(rows, key=lambda name: -rows[name]["recall"])
    malignant = [name in label_set.malignant for name in names]
    recalls = [rows[name]["recall"] for name in names]
    figure, axes = _figure(8.4, 1.3 + 0.42 * len(names))
    axes.barh(range(len(names)), recalls, height=0.62, color=[VERMILION if m else "#9fb3c8" for m in malignant])
    for i, name in enumerate(names):
        images = rows[name]["images"]
        text = f"of {images:,} image{'' if images == 1 else 's'}"
        axes.text(1.09, i, f"{recalls[i]:.0%}", ha="right", va="center_baseline", color=INK)
        axes.text(1.11, i, text, va="center_baseline", color=MUTED)
    axes.set_yticks(range(len(names)), [_wrapped(name, 30) for name in names])
    _embolden(axes.get_yticklabels(), malignant)
    axes.tick_params(axis="y", length=0)
    mean = metrics["balanced_accuracy"]
    axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(mean, -0.62, f"mean {mean:.0%}", ha="center", va="bottom", fontsize=9.5, color=INK)
    # Room at the right for the numbers, in a column of their own.
    axes.set(xlim=(0, 1.32), ylim=(len(names) - 0.4, -0.6))
    axes.set_xlabel("Recall (sensitivity)", x=0.5 / 1.32)
    _percent(axes, "x")
    axes.spines["bottom"].set_bounds(0, 1)
    axes.spines["left"].set_visible(False)
    return _png(figure)


def _tall_figure(label_set: LabelSet) -> tuple[Figure, Axes]:
    """Return a figure for curves from 0 to 1, tall enough for a legend of all classes."""
    figure, axes = _figure(8.8, max(5.4, 1.2 + 0.27 * len(label_set.classes)))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    _percent(axes, "both")
    return figure, axes


def _against_the_rest(
    probabilities: FloatArray, labels: IntArray, label_set: LabelSet
) -> Iterator[tuple[str, npt.NDArray[np.bool_], FloatArray, dict[str, Any]]]:
    """Yield each class that has images, and not them alone: its name, which are its images, its scores, its style."""
    styles = _line_styles(label_set)
    for i, name in enumerate(label_set.classes):
        is_class = labels == i
        if is_class.any() and not is_class.all():
            yield name, is_class, probabilities[:, i], styles[name]


def _add_legend(figure: Figure, lines: list[Line2D], title: str) -> None:
    """Name the lines beside the axes, the strongest first."""
    lines.sort(key=lambda line: -line.get_zorder())
    figure.legend(
        lines,
        # Handed over one by one: a label that starts with "_" would otherwise be left out.
        [str(line.get_label()) for line in lines],
        title=title,
        alignment="left",
        loc="outside right center",
        frameon=False,
        labelcolor=INK,
        handlelength=2.8,
    )


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _blank(width, height)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _blank(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=160, layout="constrained", facecolor="white")


def _style(axes: Axes) -> None:
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=10)
    axes.xaxis.label.set(color=INK, size=10.5)
    axes.yaxis.label.set(color=INK, size=10.5)
    axes.xaxis.labelpad = axes.yaxis.labelpad = 8
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color="#b4bcc8", linewidth=0.8)


def _percent(axes: Axes, which: str) -> None:
    """Mark 0 to 100 % on one axis or both, with hairlines below the data."""
    for axis in [a for name, a in (("x", axes.xaxis), ("y", axes.yaxis)) if which in (name, "both")]:
        axis.set_ticks(np.linspace(0, 1, 6))
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(color=HAIRLINE, linewidth=0.8)
    axes.set_axisbelow(True)


def _line_styles(label_set: LabelSet) -> dict[str, dict[str, Any]]:
    """Give melanoma the strongest line, other malignant classes a colour each, the rest thin greys and dashes."""
    colours, greys = (cycle([(c, d) for d in _DASHES for c in palette]) for palette in (_COLOURS, _GREYS))
    styles: dict[str, dict[str, Any]] = {}
    for name in label_set.classes:
        if name == label_set.melanoma:
            styles[name] = {"color": VERMILION, "linewidth": 2.8, "zorder": 5}
        # Of a set that knows no malignant class, each class deserves a colour.
        elif name in label_set.malignant or not label_set.malignant:
            colour, dashes = next(colours)
            styles[name] = {"color": colour, "linewidth": 2, "linestyle": dashes, "zorder": 4}
        else:
            grey, dashes = next(greys)
            styles[name] = {"color": grey, "linewidth": 1.1, "linestyle": dashes, "zorder": 3}
    return styles


def _draw_grid(axes: Axes, cells: int) -> None:
    """Part the cells of a matrix by hairlines, in the place of ticks."""
    axes.set_xticks(np.arange(cells + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(cells + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=HAIRLINE, linewidth=1)
    axes.tick_params(which="both", length=0)


def _write_counts(axes: Axes, counts: IntArray, shares: FloatArray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.62 else INK if count else "#b4bcc8"
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=9.5, color=colour)


def _embolden(ticks: list[Any], which: list[bool]) -> None:
    for tick, bold in zip(ticks, which, strict=True):
        if bold:
            tick.set_fontweight("bold")


def _wrapped(name: str, width: int = 20) -> str:
    short = name if len(name) <= 60 else name[:59] + "…"
    # A dollar sign would start mathematics, in which matplotlib fails on whatever is no formula.
    return textwrap.fill(short, width).replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Constrained layout alone cuts the labels of square axes off. No software version inside: the same numbers give the
    # same bytes.
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
    return buffer.getvalue()
