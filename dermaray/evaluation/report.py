"""The report of an evaluation: JSON for programs, plots, and one page for a person."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaray.decisions.arrays import IntArray
from dermaray.decisions.decisions import Decided
from dermaray.errors import OutputError
from dermaray.evaluation.bootstrap import FEWEST_GROUPS
from dermaray.evaluation.metrics import check_predictions
from dermaray.evaluation.mistakes import Mistake
from dermaray.evaluation.plots import (
    plot_confusion_matrix,
    plot_precision_recall_curves,
    plot_recall,
    plot_reliability,
    plot_roc_curves,
)
from dermaray.evaluation.subgroups import FEWEST_IMAGES, FEWEST_MELANOMAS, FIGURES, GAP
from dermaray.evaluation.tables import (
    COLUMNS,
    SUBGROUP_TITLES,
    class_rows,
    coverage_rows,
    decimal,
    decimals,
    decision_rows,
    further_rows,
    percent,
    percents,
    referral_rows,
    specificity_rows,
    subgroup_rows,
)
from dermaray.files import write_json
from dermaray.labels import LabelSet
from dermaray.pages import render_page

# For each plot its title, what it shows, and what is added where the label set knows malignant classes.
_CAPTIONS = {
    "recall": (
        "Recall of each class",
        "The share of each class that the model named rightly. The dashed line is the balanced accuracy, the mean of "
        "the bars. Few images make an uncertain bar.",
        "Malignant classes are bold and orange-red.",
    ),
    "confusion_matrix": (
        "Which class is taken for which",
        "Each row is a true class, each column what the model said; numbers are images, and colour is the share of the "
        "row. Right answers lie on the diagonal.",
        "Malignant classes are bold.",
    ),
    "roc_curves": (
        "Sensitivity against specificity",
        "One class against all others, at every threshold on its probability. The nearer to the upper left corner, the "
        "better the separation.",
        "Malignant classes are in colour, the others in grey.",
    ),
    "precision_recall_curves": (
        "Precision against recall",
        "How many alarms of a class are right, for how many of its images are found, at every threshold. It hangs on "
        "how common the class is in these images.",
        "Malignant classes are in colour, the others in grey.",
    ),
    "reliability": (
        "Do the probabilities mean what they say?",
        "Answers by the probability that the model gave them: below, how many; above, the share of them that is right, "
        "with its 95 % interval, as if no two images showed one lesion. On the dashed line a probability can be taken "
        "at its word; below it the model is too sure.",
        "",
    ),
}


Gallery = Mapping[str, Sequence[tuple[Mistake, str, bytes | None]]]
"""Mistakes by their kind, each with the image's id and a JPEG of it, or None where there is none any more."""


@dataclass(frozen=True)
class _Headline:
    """One headline figure: the number, where it may lie, what it means, and the number that it has to beat."""

    name: str
    value: str
    interval: str
    meaning: str
    baseline: str


def write_report(
    out: Path,
    metrics: dict[str, Any],
    decided: Decided,
    labels: IntArray,
    label_set: LabelSet,
    facts: dict[str, str],
    gallery: Gallery,
    warnings: Sequence[str] = (),
) -> None:
    """Write `metrics.json`, `plots/*.png` and `report.html` into a folder.

    The page stands alone: images and style are inside it, nothing is fetched, nothing runs.

    Args:
        out: An existing folder. Files of these names are replaced.
        metrics: What `compute_metrics` returned for the same predictions, `bootstrap_intervals` under `intervals`,
            `measure_subgroups` under `subgroups`, and `measure_decisions` under `decisions`.
        decided: What the model said of N images.
        labels: integer [N], 0 to C - 1.
        label_set: The C classes.
        facts: What was measured on what, in the order to be shown: {"Model": ..., "Data": ..., "Split": ...}. Plain
            text. `metrics.json` holds them under `facts`.
        gallery: What the model got most wrong.
        warnings: Why the figures must not be believed, in sentences without a full stop. `metrics.json` holds them
            under `warnings`.

    Raises:
        DataError: The predictions do not fit each other or the label set.
        OutputError: `out` is no folder, or cannot be written.
    """
    probabilities = decided.probabilities
    check_predictions(probabilities, labels, label_set)
    if not out.is_dir():
        raise OutputError(f"a report needs an existing folder. Received: {out}")
    plots = {
        "recall": plot_recall(metrics, label_set),
        "confusion_matrix": plot_confusion_matrix(metrics, label_set),
        "roc_curves": plot_roc_curves(probabilities, labels, label_set),
        "precision_recall_curves": plot_precision_recall_curves(probabilities, labels, label_set),
        "reliability": plot_reliability(probabilities, labels, decided.label),
    }
    page = _render(metrics, label_set, facts, gallery, warnings, plots)
    try:
        write_json(out / "metrics.json", {"facts": facts, "warnings": list(warnings), **metrics})
        (out / "plots").mkdir(exist_ok=True)
        for name, png in plots.items():
            (out / "plots" / f"{name}.png").write_bytes(png)
        (out / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}. Choose another folder") from error


def _render(
    metrics: dict[str, Any],
    label_set: LabelSet,
    facts: dict[str, str],
    gallery: Gallery,
    warnings: Sequence[str],
    plots: dict[str, bytes],
) -> str:
    return render_page(
        "evaluation/report.html",
        {},
        metrics=metrics,
        facts=facts,
        warnings=warnings,
        headline_groups=_headlines(metrics, label_set),
        baseline=metrics["majority_baseline"],
        malignant=label_set.malignant,
        columns=COLUMNS,
        further=further_rows(metrics),
        classes=class_rows(metrics),
        specificities=specificity_rows(metrics),
        subgroups={attribute: subgroup_rows(rows) for attribute, rows in metrics["subgroups"].items()},
        subgroup_figures=[SUBGROUP_TITLES[name] for name in FIGURES],
        decisions=decision_rows(metrics["decisions"]),
        coverages=coverage_rows(metrics["decisions"]),
        referrals=referral_rows(metrics["decisions"]),
        gallery={
            kind: [(mistake, name, jpeg and base64.b64encode(jpeg).decode("ascii")) for mistake, name, jpeg in found]
            for kind, found in gallery.items()
        },
        gap=f"{100 * GAP:.0f}",
        fewest=FEWEST_IMAGES,
        fewest_melanomas=FEWEST_MELANOMAS,
        fewest_groups=FEWEST_GROUPS,
        smallest=_smallest_class(metrics),
        plots=[(*_CAPTIONS[name], base64.b64encode(png).decode("ascii")) for name, png in plots.items()],
    )


def _headlines(metrics: dict[str, Any], label_set: LabelSet) -> dict[str, list[_Headline]]:
    """Return the headline figures under the heading of their group."""
    baseline, intervals = metrics["majority_baseline"], metrics["intervals"]
    # Always naming one class ranks every image the same, and ties count as a half.
    chance = decimal(0.5)
    headlines = [
        _Headline(
            "Balanced accuracy",
            percent(metrics["balanced_accuracy"]),
            percents(intervals["balanced_accuracy"]),
            "The mean share recognised over the classes that are here, so that a rare diagnosis counts as much as a "
            "common one.",
            percent(baseline["balanced_accuracy"]),
        ),
        _Headline(
            "Accuracy",
            percent(metrics["accuracy"]),
            percents(intervals["accuracy"]),
            "The share of all images that got the right diagnosis. Common diagnoses dominate it.",
            percent(baseline["accuracy"]),
        ),
        _Headline(
            "Mean AUC over classes",
            decimal(metrics["macro_auc"]),
            decimals(intervals["macro_auc"]),
            "How well a class is told from all others, whatever the threshold: 1 is perfect, 0.5 is a coin toss.",
            chance,
        ),
    ]
    melanoma = _melanoma_headlines(metrics, label_set, chance)
    return {**({"Melanoma": melanoma} if melanoma else {}), "All classes": headlines}


def _melanoma_headlines(metrics: dict[str, Any], label_set: LabelSet, chance: str) -> list[_Headline]:
    if label_set.melanoma is None:
        return []
    row = metrics["per_class"][label_set.melanoma]
    auc = metrics["melanoma_auc"]
    headlines = [
        _Headline(
            "AUC",
            decimal(auc),
            decimals(metrics["intervals"]["melanoma_auc"]),
            "There are no images on one side of the comparison, so this cannot be measured."
            if auc is None
            else f"Of one melanoma and one other lesion, picked at random, the model gives the melanoma the higher "
            f"probability of melanoma {auc:.1%} of the time.",
            chance,
        )
    ]
    if row["recall"] is not None:
        found = round(row["recall"] * row["images"])
        always = metrics["majority_baseline"]["class"] == label_set.melanoma
        headlines.append(
            _Headline(
                "Recognised",
                percent(row["recall"]),
                percents(metrics["intervals"]["per_class"][label_set.melanoma]["recall"]),
                f"Of {row['images']:,} melanomas, {found:,} were called melanoma and {row['images'] - found:,} were "
                "called something else.",
                percent(float(always)),
            )
        )
    return headlines


def _smallest_class(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the name and size of the class with the fewest images, of those that have any."""
    sizes = {name: row["images"] for name, row in metrics["per_class"].items() if row["images"]}
    name = min(sizes, key=lambda n: sizes[n])
    return {"name": name, "images": sizes[name]}
