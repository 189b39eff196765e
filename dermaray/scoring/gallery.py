"""The images with the highest melanoma probabilities of a run, as a page for a dermatologist."""

import base64
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from dermaray.data.members import STREAMS, Member, read_members
from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array, shrink
from dermaray.models.artifact import Artifact
from dermaray.models.rows import SCORED
from dermaray.pages import render_page
from dermaray.scoring.ledger import Ledger

_COLUMNS = [
    "image_id",
    "uri",
    "status",
    "melanoma_probability",
    "label",
    "alert",
    "refer",
    "prediction_set",
    "ood_score",
]
_JPEG_QUALITY = 85

_SIDE = 480
"""Pixels of a picture's longer side, at most."""


class _Shown(NamedTuple):
    """An image of the page: its row, and as base64 the picture, and what the model sees of it under its map."""

    row: dict[str, Any]
    picture: str
    explained: str


def render_gallery(ledger: Ledger, shards: Sequence[pa.Table], artifact: Artifact, count: int) -> str:
    """Return a page of the images with the highest melanoma probabilities, each beside what spoke for melanoma.

    For a process that may import TensorFlow.

    Args:
        ledger: A run whose shards are all there.
        shards: Those shards, to read the images again.
        artifact: The model, which has a class of melanoma.
        count: How many images, at most. One that cannot be read any more is left out.

    Raises:
        StoreError: The store of the images cannot be reached.
    """
    from dermaray.models.explain import GradCam, overlay

    explain = GradCam(artifact.load_model())
    melanoma = np.array([artifact.label_set.melanoma_index])
    shown = []
    for row, member in _images(ledger, shards, count):
        try:
            pixels, picture = member.decode(artifact.input_spec).pixels, member.decode_frame(None).pixels
        except ImageError:
            continue
        heat = explain(pixels[None], melanoma)[0]
        shown.append(_Shown(row, _jpeg(shrink(picture, _SIDE)), _jpeg(overlay(pixels, heat))))
    shown.sort(key=lambda one: -one.row["melanoma_probability"])
    about = {"model": artifact.name, "digest": artifact.digest[:16]}
    return render_page("scoring/gallery.html", {}, shown=shown, **about)


def _images(ledger: Ledger, shards: Sequence[pa.Table], count: int) -> Iterator[tuple[dict[str, Any], Member]]:
    """Yield the highest rows of a run, each with its image, shard by shard."""
    places, probabilities = [], []
    for number, rows in enumerate(ledger.rows(["status", "melanoma_probability"])):
        scored = np.flatnonzero(rows["status"].to_numpy() == SCORED)
        places += [(number, row) for row in scored.tolist()]
        probabilities.append(rows["melanoma_probability"].to_numpy()[scored])
    order = np.argsort(-np.concatenate(probabilities), kind="stable")[:count]
    wanted: dict[int, list[int]] = {}
    for number, row in sorted(places[position] for position in order.tolist()):
        wanted.setdefault(number, []).append(row)
    # In ascending order, both.
    for number, rows in zip(wanted, ledger.rows(_COLUMNS, wanted), strict=True):
        # An archive may have lost what came last.
        yield from zip(rows.take(wanted[number]).to_pylist(), _read(shards[number], wanted[number]), strict=False)


def _read(shard: pa.Table, rows: list[int]) -> Iterator[Member]:
    """Read some images of a shard, whose numbers ascend."""
    if shard["kind"][0].as_py() not in STREAMS:
        yield from read_members(shard.take(rows))
        return
    for number, member in enumerate(read_members(shard)):
        if number in rows:
            yield member
        if number == rows[-1]:
            return


def _jpeg(pixels: UInt8Array) -> str:
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return base64.b64encode(encoded.tobytes()).decode("ascii")
