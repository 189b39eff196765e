"""What forbids to measure a model on some images."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dermaray.data.gate import check_gate
from dermaray.data.manifest import Manifest
from dermaray.errors import DataError, LeakError
from dermaray.models.artifact import Artifact

_SEEN_BY = {
    "sha256": "were trained on",
    "image_id": "have the ISIC number of an image that was trained on",
    "lesion_id": "show a lesion that was trained on",
    "patient_id": "are of a patient who was trained on",
}
"""How an image may be known, and what is said of those that are."""

_FORMS = {
    "image_id": "ISIC_[0-9]{7}",
    "lesion_id": "^(?:HAM|BCN|IL|MSK[0-9]?)_[0-9]{7}$",
    "patient_id": "^IP_[0-9]{7}$",
}
"""Names of the ISIC archive. Others mean nothing beyond their own source: two clinics count their patients from 1."""


def check_measurable(artifacts: Sequence[Artifact], manifest: Manifest, split: str, *, allow_leaks: bool) -> list[str]:
    """Refuse to measure models on a split that would flatter one of them.

    Args:
        artifacts: The models.
        manifest: The data.
        split: Which of its splits.
        allow_leaks: Let all pass but other classes.

    Returns:
        What leaks, for the record; empty unless `allow_leaks`.

    Raises:
        DataError: A model and the data have other classes, or the split is empty.
        LeakError: The splits leak, or a model was trained on some of the images.
    """
    for artifact in artifacts:
        check_labels(artifact, manifest)
    leaks = check_gate(manifest, allow=allow_leaks)
    images = manifest.rows(split)
    # On their own training images models may be measured: to see how much they overfit.
    if split == "train" and all(made_of(artifact, manifest) for artifact in artifacts):
        return leaks
    source = manifest.source_name
    return [*leaks, *(s for artifact in artifacts for s in check_unseen(artifact, images, source, allow=allow_leaks))]


def made_of(artifact: Artifact, manifest: Manifest) -> bool:
    """Tell whether a model, with all its members, was trained on this data, whichever of its folds it was.

    What it started from does not count.
    """
    these = {manifest.digest, manifest.facts.get("unfolded_digest")} - {None}
    return all(
        {data.get("digest"), data.get("unfolded_digest")} & these
        for data in _trained_on(artifact.provenance, starts=False)
    )


def _trained_on(provenance: Mapping[str, Any], *, starts: bool = True) -> list[dict[str, Any]]:
    """Return what a model keeps of the data of each network in it, and of what that started from."""
    runs = (run for network in networks_of(provenance) for run in (runs_of(network) if starts else [network]))
    return [run.get("data", {}) for run in runs]


def networks_of(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the provenance of each network in a model; that of an ensemble is of its decisions."""
    members = provenance.get("members", [])
    return [network for member in members for network in networks_of(member["provenance"])] or [provenance]


def runs_of(network: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the provenance of a network and of the networks that its training started from, one after the other."""
    start = network.get("started_from", {}).get("provenance")
    return [network, *(run for first in (networks_of(start) if start else []) for run in runs_of(first))]


def _names(images: pa.Table, column: str, form: str | None) -> pa.Array:
    values = images[column].combine_chunks()
    return values if form is None else pc.struct_field(pc.extract_regex(values, f"(?P<name>{form})"), "name")


def check_labels(artifact: Artifact, manifest: Manifest) -> None:
    """Check that a model and a manifest speak of the same classes.

    Raises:
        DataError: They do not.
    """
    model, data = artifact.label_set.classes, manifest.label_set.classes
    if model != data:
        raise DataError(
            f"the model knows {', '.join(model)}; the manifest has {', '.join(data)}. "
            "Prepare the data with the model's label set (--labels)"
        )


def check_unseen(artifact: Artifact, images: pa.Table, source: str, *, allow: bool = False) -> list[str]:
    """Refuse to measure a model on what it was trained on, whatever manifest it comes from.

    Images are known by their bytes and, where they have one, their number in the ISIC archive; lesions and patients by
    their numbers there, or where the source has the name of one of those that the model was trained on. A copy of
    another size without any of these is not noticed.

    Args:
        artifact: The model.
        images: Rows of a manifest.
        source: Its `source_name`.
        allow: Let it pass all the same.

    Returns:
        What was found, for the record, by the model's name; empty unless `allow`.

    Raises:
        LeakError: The model was trained on one of the images, or on another image of its lesion or patient; `allow` is
            false.
    """
    same = source in {data.get("source") for data in _trained_on(artifact.provenance)}
    seen = []
    for column, known in _known(images, artifact.trained_on(), same_source=same).items():
        if found := images.filter(known)["image_id"].to_pylist():
            seen.append(f"{len(found):,} of these {images.num_rows:,} images {_SEEN_BY[column]}, {found[0]} for one")
    if seen and not allow:
        told = "; ".join(seen)
        raise LeakError(f"{artifact.name} would be measured on what it has learnt: {told}. --allow-leaks permits it")
    return [f"{artifact.name}: {told}" for told in seen]


def count_decided_on(artifact: Artifact, images: pa.Table, source: str) -> int:
    """Return how many images chose a model's epoch or fitted its decisions, or show what did so: figures are too good.

    Args:
        artifact: The model.
        images: Rows of a manifest.
        source: Its `source_name`; see `check_unseen`.
    """
    own = artifact.provenance
    same = source in {data.get("source") for data in [own.get("data", {}), *_trained_on(own)]}
    known = _known(images, artifact.decided_on(), same_source=same)
    return int(pc.sum(reduce(pc.or_, known.values())).as_py() or 0)


def _known(images: pa.Table, others: pa.Table, *, same_source: bool) -> dict[str, pa.Array]:
    """Tell by each column of `_SEEN_BY` which images are among others, rows of `SEEN_SCHEMA`."""
    forms = {column: None if same_source and column != "image_id" else _FORMS.get(column) for column in _SEEN_BY}
    return {
        column: pc.is_in(_names(images, column, form), value_set=pc.drop_null(_names(others, column, form)))
        for column, form in forms.items()
    }
