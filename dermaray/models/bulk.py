"""Many images through one model, as a Ray Data stream: decoded in tasks, scored in actors that hold the model."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from dermaray.data.archive import MEMBER_SCHEMA, Member, read_members
from dermaray.data.streams import blocks_of
from dermaray.errors import ImageError
from dermaray.images.decode import MAX_BYTES
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
        A dataset of `image_id`, `uri`, `sha256` (of the bytes; empty where they were not read whole), `reason` and
        `message` (both empty where the image was decoded), `width` and `height` of the original in pixels (0 where
        unknown), `image`, uint8 [height, width, 3] (black where not decoded), and `row` and `last` (see `score_tasks`).
    """
    return _decoded(blocks_of(members), spec)


def score_stream(members: pa.Table, artifact: Artifact, actors: int = 1) -> ray.data.Dataset:
    """Return one row per image, in any order.

    Args:
        members: See `decode_stream`.
        artifact: The model; its folder must be readable from every node.
        actors: How many processes hold the model.

    Returns:
        What `decode_stream` does, with what `Decided` holds in place of `image`: zeros where not scored.
    """
    return _scored(decode_stream(members, artifact.input_spec), artifact, actors)


def score_tasks(tasks: list[pa.Table], artifact: Artifact, actors: int = 1) -> ray.data.Dataset:
    """Return one row per image, in any order, and which task it is of.

    Args:
        tasks: Tables of `dermaray.data.archive.MEMBER_SCHEMA`, each read by one task. A further column has one value.
        artifact: See `score_stream`.
        actors: See `score_stream`.

    Returns:
        What `score_stream` does, with the further columns; `row`, which counts a task's images; and `last`, true for
        the last one of a task.
    """
    return _scored(_decoded(tasks, artifact.input_spec), artifact, actors)


def _decoded(tasks: list[pa.Table], spec: InputSpec) -> ray.data.Dataset:
    dataset = ray.data.from_arrow(tasks)
    return dataset.map_batches(_Decode(spec), batch_format="pyarrow", batch_size=None)


def _scored(decoded: ray.data.Dataset, artifact: Artifact, actors: int) -> ray.data.Dataset:
    # A block is that of one task: what the network sees together, and so its rounding, is the same in every run.
    return decoded.map_batches(
        _Score, fn_constructor_args=(artifact,), batch_format="numpy", batch_size=None, concurrency=actors
    )


class _Decode:
    """Read and decode members; yields as it goes, so that a long archive is never held whole."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def __call__(self, members: pa.Table) -> Iterator[Batch]:
        further = [name for name in members.schema.names if name not in MEMBER_SCHEMA.names]
        of_task = {name: members[name][0].as_py() for name in further}
        rows: list[Batch] = []
        images = read_members(members)
        following, number = next(images, None), 0
        while following is not None:
            member, following = following, next(images, None)
            rows.append({**of_task, "row": number, "last": following is None, **self._row(member)})
            if len(rows) == BATCH_SIZE or following is None:
                yield _columns(rows)
                rows = []
            number += 1

    def _row(self, member: Member) -> Batch:
        # What is larger was not read to its end.
        whole = not member.error and len(member.data) <= MAX_BYTES
        digest = hashlib.sha256(member.data).hexdigest() if whole else ""
        row: Batch = {"image_id": member.image_id, "uri": member.uri, "sha256": digest}
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
