"""The model card: what a model is, what it is for, how good it is and for whom, and what it must not be used for.

Its parts are those of Mitchell et al. 2019, "Model cards for model reporting".
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dermaray.errors import OutputError
from dermaray.evaluation.checks import networks_of, runs_of
from dermaray.evaluation.subgroups import FEWEST_IMAGES, FEWEST_MELANOMAS, FIGURES
from dermaray.evaluation.tables import (
    COLUMNS,
    SUBGROUP_TITLES,
    Cell,
    class_rows,
    coverage_rows,
    decision_rows,
    headline_rows,
    percent,
    referral_rows,
    specificity_rows,
    subgroup_rows,
)
from dermaray.labels import MEANINGS, LabelSet
from dermaray.models.artifact import INT8, LITERT, Artifact
from dermaray.pages import render_markdown, render_page

_LIMITS = (
    "It knows dermoscopic images of single lesions and no others: not clinical photographs, not several lesions, not "
    "lesions that were treated before. `ood_score` above 1 warns of some of these, not of all.",
    "It knows the diagnoses below and no others. A lesion of another kind gets one of them, or a set of several.",
    "Images from other clinics, cameras or dermatoscopes, or of other skin colours, may get worse answers; the figures "
    "below do not show this.",
    "The labels that it learnt from hold mistakes, and the share of each diagnosis in the images is not that of any "
    "clinic: probabilities, precision and the rate of alerts move with it.",
)

_LOW = (
    "A figure more than 10 points below that of all images is called low, or low? where its interval reaches up to "
    "that figure or there is none, so that it may be by chance; balanced accuracy is compared over the diagnoses that "
    "the subgroup has. Of many subgroups one or another is called low by chance all the same. Melanomas are counted by "
    f"lesion or patient; of fewer than {FEWEST_MELANOMAS} there is no AUC. "
    f"Subgroups of fewer than {FEWEST_IMAGES} images, and images of which the attribute is not known, are left out."
)

_USE = (
    "Research use only. It is not a medical device, and no figure here is a basis for the care of a patient.",
    "It is meant for measuring, comparing and sorting images in studies, where a dermatologist reads every image whose "
    "answer is acted on.",
)


@dataclass(frozen=True)
class _Table:
    """Column titles, and rows of as many cells."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class _Section:
    """A part of a card: paragraphs, then facts, then tables."""

    title: str
    paragraphs: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[_Table] = ()


def write_card(artifact: Artifact, metrics: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """Write `MODEL_CARD.md` and `model_card.html` into a model's folder, in place of earlier ones.

    Args:
        artifact: The model.
        metrics: What `measure` returned.
        facts: What was measured: `Data`, `Split` and so on.

    Raises:
        OutputError: The folder cannot be written.
    """
    sections = [
        _model(artifact),
        _Section("Intended use", _USE),
        _limits(artifact.label_set),
        _data(artifact),
        _figures(metrics, facts),
        _subgroups(metrics),
        _decisions(artifact, metrics),
        _reproduce(artifact),
    ]
    values = {"name": artifact.name, "sections": [section for section in sections if section is not None]}
    pages = {
        "MODEL_CARD.md": render_markdown("evaluation/card.md", **values),
        "model_card.html": render_page("evaluation/card.html", {}, **values),
    }
    try:
        for file, text in pages.items():
            (artifact.path / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the card of {artifact.path} cannot be written: {error.strerror}") from error


def _model(artifact: Artifact) -> _Section:
    made, spec = artifact.provenance, artifact.input_spec
    versions = made["versions"]
    networks = [_network(network) for network in networks_of(made)]
    return _Section(
        "Model",
        facts={
            "Name": artifact.name,
            "Version": artifact.version,
            "Digest": artifact.digest,
            "Made": f"{made['created']}, by dermaray {versions['dermaray']} with Keras {versions['keras']}",
            "Networks" if len(networks) > 1 else "Network": "; ".join(networks),
            "Views of each image": str(made["config"]["views"]),
            **_weights(made),
            "Input": f"{spec.height} x {spec.width} pixels, RGB, resized by {spec.resize}",
            "LiteRT": _converted(artifact, LITERT)
            if LITERT in artifact.files
            else f"none: the network could not be converted{_reason(made)}",
            **({"LiteRT, int8": _converted(artifact, INT8)} if INT8 in artifact.files else {}),
            "Classes": "; ".join(_class(name, artifact.label_set) for name in artifact.label_set.classes),
        },
    )


def _class(name: str, label_set: LabelSet) -> str:
    """Say what a class is, and whether it is malignant."""
    told = [MEANINGS.get(name), "malignant" if name in label_set.malignant else None]
    return f"{name} ({', '.join(filter(None, told))})" if any(told) else name


def _limits(label_set: LabelSet) -> _Section:
    """Return what the model cannot do, and what its classes leave out."""
    said = list(_LIMITS)
    if "AKIEC" in label_set.classes:
        said.append(
            "AKIEC counts as not malignant, since most of it is actinic keratosis. Bowen's disease, which it holds as "
            "well, is a carcinoma in situ. Invasive squamous cell carcinoma is none of the classes."
        )
    return _Section("Limits", said)


def _reason(made: Mapping[str, Any]) -> str:
    reason = made.get("unconverted", {}).get(LITERT)
    return f": {reason}" if reason else ""


def _weights(made: Mapping[str, Any]) -> dict[str, str]:
    rounded = made["config"].get("weights_as", "float32")
    how = {"float16": "rounded to float16", "int8": "kernels rounded to int8, with a step for each channel"}
    return {"Weights": f"{how[rounded]}; computed with as float32"} if rounded in how else {}


def _converted(artifact: Artifact, file: str) -> str:
    """Say what it costs that LiteRT runs the network, as a file has it."""
    found = artifact.provenance.get("engines", {}).get(file)
    if found is None:
        return f"{file}; by how much it differs was not measured"
    accuracies = f"{found['balanced_accuracy']:.3f} against {found['balanced_accuracy_of_keras']:.3f}"
    differs = f"its probabilities differ by at most {found['largest_difference']:.4f}"
    return (
        f"{file}; on {found['images']:,} validation images {differs} from those by Keras, and its balanced accuracy is "
        f"{accuracies}"
    )


def _network(network: Mapping[str, Any]) -> str:
    """Say what a network is, and where its training started."""
    model, start = network["config"]["model"], network.get("started_from", {})
    weights = f"weights: {model['weights']}"
    if "digest" in start:
        weights = f"the weights of {start['name']}, version {start['version']}, {start['digest'][:16]}"
    elif start:
        weights += ", of which it is not known what they were trained on"
    return f"{model['backbone']}, starting from {weights}"


def _data(artifact: Artifact) -> _Section:
    made = artifact.provenance
    runs = [run for network in networks_of(made) for run in runs_of(network)]
    leaks = made.get("leaks", [])
    licences = sorted({run["config"]["data"]["licence"] for run in runs} - {None})
    return _Section(
        "Data",
        [f"What it was trained on leaks: {leak}. The figures below must not be believed." for leak in leaks],
        {
            **_sources(artifact, [run["data"] for run in runs]),
            "Licence": "; ".join(licences) or "not stated: ask for it before you pass the model on, which may carry it",
        },
    )


def _sources(artifact: Artifact, learnt: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return which images a model was trained on, and which its decisions are fitted on."""
    data, decisions = artifact.provenance["data"], artifact.decisions.facts
    trained, validated = (_images(seen) for seen in (artifact.trained_on(), artifact.decided_on()))
    if all(_digests(data) & _digests(other) for other in learnt):
        return {
            "Source": str(data.get("source", "unknown")),
            "Digest": str(data["digest"]),
            "Images": f"{data['images']:,}, of which {trained:,} were trained on and {validated:,} validated on, to "
            "choose the epoch or fit the decisions",
        }
    sources = sorted({f"{other.get('source', 'unknown')} ({str(other.get('digest'))[:16]})" for other in learnt})
    return {
        "Trained on": f"{trained:,} images of {', '.join(sources)}",
        "Validated on": f"{validated:,} images, to choose an epoch or fit decisions",
        "Decisions fitted on": f"{decisions['images']:,} images of {data.get('source', 'unknown')}",
        "Digest of the latter": str(data["digest"]),
    }


def _images(seen: pa.Table) -> int:
    return int(pc.count_distinct(seen["sha256"]).as_py())


def _digests(data: Mapping[str, Any]) -> set[str]:
    """Return what data is known by: of a fold that of the whole, too."""
    return {str(data[name]) for name in ("digest", "unfolded_digest") if data.get(name)}


def _figures(metrics: Mapping[str, Any], facts: Mapping[str, str]) -> _Section:
    groups = metrics["intervals"]["groups"]
    classes = _Table(
        ["Class", "Images", *(title for title, _, _ in COLUMNS)],
        [[name, images, *map(_joined, cells)] for name, images, cells in class_rows(metrics)],
    )
    specificities = _Table(
        ["Specificity for melanoma, at least, by a threshold that these images chose", "Sensitivity"],
        [[at, _joined(cell)] for at, cell in specificity_rows(metrics)],
    )
    seen = metrics["decisions"].get("fitted_on", 0)
    too_good = [f"{seen:,} of these images chose its epoch or fitted its decisions, which makes the figures too good."]
    headlines = _Table(["Figure", "Value"], [[title, _joined(cell)] for title, cell in headline_rows(metrics)])
    return _Section(
        "Figures",
        [
            f"Measured on {metrics['images']:,} images of {groups:,} lesions or patients; in brackets 95 % bootstrap "
            "intervals, in which images of one lesion are drawn together. They are too narrow for figures that rest on "
            "a few dozen images, and a figure without one is hardly known. Always answering "
            f"{metrics['majority_baseline']['class']} has an accuracy of "
            f"{percent(metrics['majority_baseline']['accuracy'])}.",
            *(too_good if seen else []),
        ],
        facts,
        [headlines, classes, *([specificities] if specificities.rows else [])],
    )


def _subgroups(metrics: Mapping[str, Any]) -> _Section | None:
    if not metrics["subgroups"]:
        return None
    titles = [SUBGROUP_TITLES[name] for name in FIGURES]
    tables = [
        _Table(
            [attribute.capitalize(), "Images", "Melanomas", *titles],
            [
                [value, images, melanomas, *(_joined(cell) + (f" ({mark})" if mark else "") for cell, mark in cells)]
                for value, images, melanomas, cells in subgroup_rows(rows)
            ],
        )
        for attribute, rows in metrics["subgroups"].items()
    ]
    return _Section("Subgroups", [_LOW], {}, tables)


def _decisions(artifact: Artifact, metrics: Mapping[str, Any]) -> _Section:
    measured = metrics["decisions"]
    table = _Table(
        ["Decision", "Measured", "Promised, at least"],
        [[title, _joined(cell), promised] for title, cell, promised in decision_rows(measured)],
    )
    coverage = _Table(
        ["Diagnosis", "In the sets of its lesions", "Promised, at least"],
        [[name, _joined(cell), promised] for name, cell, promised in coverage_rows(measured)],
    )
    referral = _Table(
        ["Least certain images referred", "Accuracy on the others", "Balanced accuracy on the others"],
        [[share, *map(_joined, cells)] for share, *cells in referral_rows(measured)],
    )
    return _Section("Decisions", _promises(artifact), {}, [table, coverage, referral])


def _promises(artifact: Artifact) -> list[str]:
    """Say how a model decides, and what is promised of that."""
    decisions = artifact.decisions
    asked = decisions.facts["asked_for"]
    said = [
        f"Fitted on {decisions.facts['images']:,} validation images of {decisions.facts['groups']:,} lesions or "
        "patients. What is promised counts each lesion once, or each patient where the data name them, as do the "
        f"figures beside it, and holds for lesions that come from where these came from. {_ungrouped(artifact)}"
    ]
    if asked["label"] == "balanced":
        said.append(
            "The answer is the diagnosis that is most probable for how common it was among the validation images, and "
            "need not be the one with the highest probability: rare diagnoses are named more readily. How certain an "
            "answer is, for the last table, is measured in the same way."
        )
    if decisions.alert is not None:
        said.append(
            f"An alert is given from a melanoma probability of {decisions.alert.probability:.2g} on. With a confidence "
            f"of {100 * asked['alert_confidence']:g}% it finds at least {percent(decisions.alert.guaranteed)} of "
            f"melanomas, by the binomial bound on {decisions.alert.groups:,} of them, which takes the network as given."
        )
    said.append(
        "A prediction set holds each diagnosis with at least the share promised for it, on average over the validation "
        "sets that might have been drawn (split conformal prediction within the class): with this one the true share "
        "may be a little lower or higher, by more the fewer lesions a diagnosis has. `refer` is true where the set "
        "does not hold the answer alone, nothing is promised of it, or the image is strange. An alert stands whatever "
        "the set and `refer` say: every image with an alert is to be looked at, and every one with `refer`."
    )
    sets = zip(artifact.label_set.classes, decisions.sets, strict=True)
    if unseen := [name for name, one in sets if not one.groups]:
        said.append(
            f"No validation image shows {', '.join(unseen)}: nothing is promised of that, and whoever gets such an "
            "answer is referred."
        )
    if decisions.melanoma is not None and decisions.alert is None:
        said.append(
            "Without a validation melanoma no alert is ever given, melanoma is in every set, and all is referred."
        )
    return said


def _ungrouped(artifact: Artifact) -> str:
    """Say what it means that the data may not tell which images show one lesion."""
    count = artifact.decisions.facts.get("ungrouped")
    if count == 0:
        return "The data name the lesion or the patient of every image."
    which = "Images" if count is None else f"{count:,} images"
    return (
        f"{which} of which the data name neither count as a lesion each; where some show one lesion, less is promised."
    )


def _reproduce(artifact: Artifact) -> _Section:
    made = artifact.provenance
    run = made.get("run") or (None if made.get("members") else made["config"])
    if run is None:
        members = " ".join(f"{member['name']} ({member['digest'][:16]})" for member in made["members"])
        return _Section(
            "How to make it again",
            [
                f"`dermaray ensemble --models` of {members}, with the data of the digest above, views and decisions as "
                "`artifact.json` has them under `config`."
            ],
        )
    key = "run" if made.get("run") else "config"
    told = [
        f"The configuration is in `artifact.json`, under `provenance` and `{key}`: save that as `config.yaml`, which "
        f"may hold JSON, or take that of the run. {_needed(networks_of(made)[0])} must have the digest above: "
        f"`dermaray train --config config.yaml {shlex.quote('data.manifest=' + run['data']['manifest'])}`"
    ]
    if "fold" in made["data"] and run["data"]["fold"] is None and not made.get("run"):
        told = [
            f"It is fold {made['data']['fold']} of a run with `folds`, which made it on the way to a model of all of "
            f"them; the data's digest was {made['data']['unfolded_digest']} before it was divided."
        ]
    return _Section("How to make it again", told)


def _needed(made: Mapping[str, Any]) -> str:
    """Say what has to be there beside the data, as the beginning of a sentence about them."""
    if "started_from" not in made:
        return "The data"
    return f"The weights of {made['started_from'].get('name', 'the file above')} must be there; the data"


def _joined(cell: Cell) -> str:
    figure, interval = cell
    return f"{figure} ({interval})" if interval else figure
