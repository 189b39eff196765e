"""Many images through one model, as a Ray Data stream: decoded in tasks, scored in actors that hold the model."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from dermaray.data.archive import Member, read_members
from dermaray.data.streams import blocks_of
from dermaray.errors import ImageError
from dermaray.images.spec import InputSpec
from dermaray.models.artifact import Artifact
from dermaray.models.own_process import import_keras
from dermaray.models.predictor import Predictor

BATCH_SIZE = 32

Batch = dict[str, Any]


def score_stream(members: pa.Table, artifact: Artifact, actors: int = 1) -> ray.data.Dataset:
    """Return one row per image, in any order.

    Args:
        members: Rows of `dermaray.data.archive.MEMBER_SCHEMA`.
        artifact: The model; its folder must be readable from every node.
        actors: How many processes hold the model.

    Returns:
        A dataset of `image_id`, `uri`, `reason` and `message` (both empty where the image was scored), `width` and
        `height` of the original in pixels (0 where unknown), and `probabilities`, float32 [classes] (NaN where not
        scored).
    """
    dataset = ray.data.from_arrow(blocks_of(members))
    decoded = dataset.map_batches(_Decode(artifact.input_spec), batch_format="pyarrow", batch_size=None)
    return decoded.map_batches(
        _Score, fn_constructor_args=(artifact,), batch_format="numpy", batch_size=BATCH_SIZE, concurrency=actors
    )


class _Decode:
    """Read and decode members; yields as it goes, so that a long archive is never held whole."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def __call__(self, members: pa.Table) -> Iterator[Batch]:
        rows: list[Batch] = []
        for member in read_members(members):
            rows.append(self._row(member))
            if len(rows) == BATCH_SIZE:
                yield _columns(rows)
                rows = []
        if rows:
            yield _columns(rows)

    def _row(self, member: Member) -> Batch:
        row: Batch = {"image_id": member.image_id, "uri": member.uri}
        try:
            decoded = member.decode(self._spec)
        except ImageError as error:
            blank = np.zeros(self._spec.shape, np.uint8)
            return {**row, "reason": error.reason, "message": str(error), "width": 0, "height": 0, "image": blank}
        size = {"width": decoded.width, "height": decoded.height}
        return {**row, "reason": "", "message": "", **size, "image": decoded.pixels}


class _Score:
    """Hold a model and score what was decoded."""

    def __init__(self, artifact: Artifact) -> None:
        import_keras()
        self._predictor = Predictor(artifact)

    def __call__(self, batch: Batch) -> Batch:
        good = batch["reason"] == ""
        probabilities = np.full((len(good), len(self._predictor.artifact.label_set.classes)), np.nan, np.float32)
        probabilities[good] = self._predictor.probabilities(batch.pop("image")[good])
        return {**batch, "probabilities": probabilities}


def _columns(rows: list[Batch]) -> Batch:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
