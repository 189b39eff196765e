"""Two models on the same images: what one does better, and whether that is more than chance."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest

from dermaray.data.manifest import Manifest
from dermaray.decisions.arrays import BoolArray, IntArray
from dermaray.decisions.decisions import Decided
from dermaray.errors import DataError, OutputError
from dermaray.evaluation.bootstrap import (
    FEWEST_COUNTED,
    RESAMPLES,
    count_groups,
    covering,
    exact_interval,
    known_intervals,
)
from dermaray.evaluation.checks import count_decided_on, made_of
from dermaray.evaluation.evaluate import score
from dermaray.evaluation.metrics import MIN_TPR
from dermaray.evaluation.tables import HEADLINES, percent, signed, signed_interval
from dermaray.evaluation.weighted import Figures, Float64Array
from dermaray.files import write_json
from dermaray.labels import LabelSet
from dermaray.models.artifact import Artifact
from dermaray.models.rows import SCORED
from dermaray.pages import render_page

_LESS_IS_BETTER = ("brier",)


def compare(
    artifacts: tuple[Artifact, Artifact],
    manifest: Manifest,
    split: str,
    leaks: Sequence[str],
    out: Path,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Score a split with both models on the connected Ray cluster; write `comparison.json` and `comparison.html`.

    Args:
        artifacts: The models, of one label set.
        manifest: The data.
        split: Which of its splits.
        leaks: What leaks between training and these images, where the user wants figures in spite of it.
        out: An existing folder.
        progress: Called with the number of images scored since the last call, by either model.

    Returns:
        What `measure_difference` does; `models`: name, version and digest of each, as `fitted_on` how many of the
        images chose its epoch or fitted its decisions, as `trained_on` whether they are those that it was trained on,
        and as `leaks` what leaked where it was trained; `data`;
        `leaks`; and `left_out`, how many images one of them could not score.

    Raises:
        DataError: The split is empty, an image has changed since, or none could be scored by both.
    """
    prepared = manifest.rows(split)
    tables, decided = zip(*(score(artifact, prepared, progress) for artifact in artifacts), strict=True)
    both, kept = _in_common([table.filter(pc.equal(table["status"], SCORED)) for table in tables])
    if not len(both):
        raise DataError(f"none of the {prepared.num_rows} {split} images could be scored by both models")
    images = prepared.take(pc.index_in(both, value_set=prepared["uri"].combine_chunks()))
    labels, groups = np.asarray(manifest.label_indices(images)), images["group_id"].to_numpy()
    first, second = (one.rows(rows) for one, rows in zip(decided, kept, strict=True))
    found = {
        "models": [
            {
                "name": a.name,
                "version": a.version,
                "digest": a.digest,
                "fitted_on": count_decided_on(a, images, manifest.source_name),
                "trained_on": split == "train" and made_of(a, manifest),
                "leaks": a.provenance.get("leaks", []),
            }
            for a in artifacts
        ],
        "data": {"source": manifest.source_name, "digest": manifest.digest, "split": split},
        "leaks": list(leaks),
        "left_out": prepared.num_rows - len(both),
        **measure_difference((first, second), labels, groups, manifest.label_set),
    }
    try:
        write_json(out / "comparison.json", found)
        (out / "comparison.html").write_text(_page(found), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}. Choose another folder") from error
    return found


def measure_difference(
    decided: tuple[Decided, Decided],
    labels: IntArray,
    groups: npt.NDArray[Any],
    label_set: LabelSet,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Measure two models on the same N images.

    Args:
        decided: What each said.
        labels: The true classes, integer [N].
        groups: See `bootstrap_intervals`.
        label_set: The classes.
        resamples: See `bootstrap_intervals`.

    Returns:
        JSON values: `images`; `figures`, {name of `HEADLINES`: `first`, `second`, `difference` (second less first),
        `interval` of the difference, 95 %, `better`: `first`, `second`, or None where the interval holds 0 or there is
        none, see `known_intervals`; neither for the calibration error, whose resamples are larger than itself, by
        more for one model than for another}, and the same of each class's recall under `recall`; `answers`: how many
        images `both`, `only_first`, `only_second` and `neither` got right, and `p_value`, of McNemar's exact test that
        each errs as often (McNemar 1947), which takes images as independent. The intervals of accuracy and recalls
        are widened as `paired_interval` does.
    """
    of_first, of_second = (Figures(one.probabilities, labels, label_set, MIN_TPR, one.label) for one in decided)
    intervals = known_intervals(
        lambda weights: _less(of_second(weights), of_first(weights)), labels, groups, label_set, resamples=resamples
    )
    lead = np.subtract(*((one.label == labels).astype(float) for one in reversed(decided)))
    intervals.update(accuracy=paired_interval(intervals["accuracy"], lead, groups), ece=None)
    recalls = {
        name: paired_interval(intervals["per_class"][name]["recall"], lead[labels == k], groups[labels == k])
        for k, name in enumerate(label_set.classes)
    }
    first, second = (_compared(figures(np.ones((1, len(labels))))) for figures in (of_first, of_second))
    of_kind = {"figures": intervals, "recall": recalls}
    told = {
        kind: {
            name: _difference(name, float(values[0]), float(second[kind][name][0]), of_kind[kind][name])
            for name, values in figures.items()
        }
        for kind, figures in first.items()
    }
    right = [one.label == labels for one in decided]
    return {"images": len(labels), **told, "answers": _answers(*right)}


def paired_interval(
    resampled: list[float] | None, lead: npt.NDArray[np.float64], groups: npt.NDArray[Any]
) -> list[float] | None:
    """Return the 95 % interval of the difference of two shares, widened where few groups tell the models apart.

    It rests on these groups alone, and when all are on one side, nearly all resamples say so too. How they would divide
    between two equally good models is binomial (McNemar 1947): what the exact interval of their division comes to is
    held as well.

    Args:
        resampled: What resampling has found, or None where the difference was the same in all resamples.
        lead: Of each image, 1 where the second model alone is right, -1 where the first is, else 0; [N].
        groups: Which images belong together, [N], any values that can be sorted.
    """
    if not len(groups):
        return None
    _, group_of = np.unique(groups, return_inverse=True)
    leads, number = np.bincount(group_of, lead) / np.bincount(group_of), count_groups(groups)
    apart = float(np.abs(leads).sum())
    if resampled is not None and apart >= FEWEST_COUNTED:
        return resampled
    if not apart:
        most = exact_interval(0, number)[1]
        return [-most, most]
    exact = exact_interval(float(leads.clip(min=0).sum()), apart)
    return covering([(2 * share - 1) * apart / number for share in exact], resampled)


def _less(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one tree less those of another."""
    return {name: _less(v, other[name]) if isinstance(v, dict) else v - other[name] for name, v in one.items()}


def _compared(figures: dict[str, Any]) -> dict[str, dict[str, Float64Array]]:
    recalls = {name: row["recall"] for name, row in figures["per_class"].items()}
    return {"figures": {name: figures[name] for name in HEADLINES}, "recall": recalls}


def _difference(name: str, first: float, second: float, interval: list[float] | None) -> dict[str, Any]:
    if np.isnan(first):
        return {"first": None, "second": None, "difference": None, "interval": None, "better": None}
    better = None
    if interval is not None and not interval[0] <= 0 <= interval[1]:
        better = "second" if (interval[0] > 0) != (name in _LESS_IS_BETTER) else "first"
    return {"first": first, "second": second, "difference": second - first, "interval": interval, "better": better}


def _answers(first: BoolArray, second: BoolArray) -> dict[str, Any]:
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    apart = only_first + only_second
    return {
        "both": int((first & second).sum()),
        "only_first": only_first,
        "only_second": only_second,
        "neither": int((~first & ~second).sum()),
        "p_value": float(binomtest(only_first, apart).pvalue) if apart else 1.0,
    }


def _in_common(scored: list[pa.Table]) -> tuple[pa.Array, list[npt.NDArray[np.intp]]]:
    """Return the URIs that both tables have, and the rows where each has them."""
    uris = [table["uri"].combine_chunks() for table in scored]
    both = uris[0].filter(pc.is_in(uris[0], value_set=uris[1]))
    return both, [pc.index_in(both, value_set=of_one).to_numpy() for of_one in uris]


def _page(found: dict[str, Any]) -> str:
    rows = [(HEADLINES[name], row) for name, row in found["figures"].items() if row["first"] is not None]
    recalls = [(name, row) for name, row in found["recall"].items() if row["first"] is not None]
    return render_page(
        "evaluation/compare.html",
        {"percent": percent, "signed": signed, "interval": signed_interval},
        found=found,
        tables={"All classes": rows, "Recall of each class": recalls},
    )
