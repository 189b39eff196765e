"""Many images through one model, as a Ray Data stream: decoded in tasks, scored in actors that hold the model."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from dermaray.data.archive import STREAMS, Member, read_members
from dermaray.data.streams import blocks_of
from dermaray.errors import ImageError
from dermaray.images.spec import InputSpec
from dermaray.models.artifact import Artifact
from dermaray.models.own_process import import_keras
from dermaray.models.predictor import Predictor

BATCH_SIZE = 32

Batch = dict[str, Any]


def decode_stream(members: pa.Table, spec: InputSpec) -> ray.data.Dataset:
    """Return one row per image, in any order, decoded by tasks.

    Args:
        members: Rows of `dermaray.data.archive.MEMBER_SCHEMA`.
        spec: What images become.

    Returns:
        A dataset of `image_id`, `uri`, `reason` and `message` (both empty where the image was decoded), `width` and
        `height` of the original in pixels (0 where unknown), and `image`, uint8 [height, width, 3] (black where not
        decoded).
    """
    many = pc.is_in(members["kind"], value_set=pa.array(STREAMS))
    # What holds many images is a task of its own.
    blocks = blocks_of(members.filter(pc.invert(many))) + blocks_of(members.filter(many), rows=1)
    dataset = ray.data.from_arrow(blocks)
    return dataset.map_batches(_Decode(spec), batch_format="pyarrow", batch_size=None)


def score_stream(members: pa.Table, artifact: Artifact, actors: int = 1) -> ray.data.Dataset:
    """Return one row per image, in any order.

    Args:
        members: See `decode_stream`.
        artifact: The model; its folder must be readable from every node.
        actors: How many processes hold the model.

    Returns:
        What `decode_stream` does, with what `Decided` holds in place of `image`: zeros where not scored.
    """
    return decode_stream(members, artifact.input_spec).map_batches(
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
        decided = self._predictor.decide(batch.pop("image")[good])
        told = {name: values for name, values in vars(decided).items() if values is not None}
        return {**batch, **{name: _spread(values, good) for name, values in told.items()}}


def _spread(values: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Give values of the good rows to them, and zeros to the others."""
    spread = np.zeros((len(good), *values.shape[1:]), values.dtype)
    spread[good] = values
    return spread


def _columns(rows: list[Batch]) -> Batch:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
