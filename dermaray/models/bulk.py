"""Many images through one model, as a Ray Data stream.

On CPUs one process reads, decodes and scores what it is given, as many of them as there are cores: no pixels go from
process to process. With a GPU, images are decoded by tasks, wherever there are CPUs, and scored by actors.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from dermaray.data.members import Member, read_members
from dermaray.data.streams import RETRIES, blocks_of
from dermaray.errors import ImageError
from dermaray.images.decode import MAX_BYTES
from dermaray.images.spec import InputSpec
from dermaray.models.artifact import Artifact
from dermaray.models.engines import EngineName, open_engine
from dermaray.models.predictor import ENGINE_BATCH, Predictor

Batch = dict[str, Any]


@dataclass(frozen=True)
class Actors:
    """The processes that hold a model.

    Attributes:
        engine: What runs the network in them.
        count: How many.
        gpus: Of each.
    """

    engine: EngineName = "keras"
    count: int = 1
    gpus: float = 0

    @classmethod
    def chosen(cls, engine: EngineName, count: int | None, cpus: float, gpus: float, *, fed: bool) -> "Actors":
        """Return those for a cluster's CPUs and GPUs; where no count is given, as many as they can keep busy.

        Args:
            engine: What runs the network; `keras` alone can use a GPU.
            count: How many the user wants.
            cpus: Of the cluster.
            gpus: Of the cluster.
            fed: Whether tasks decode images for those of `keras`, which spreads a batch over all cores by itself:
                without a GPU one is enough then.
        """
        if engine != "keras":
            gpus, fed = 0, False
        busy = int(gpus) or (1 if fed else int(cpus))
        return cls(engine, max(busy, 1) if count is None else count, gpus=1 if gpus else 0)


def decode_stream(members: pa.Table, spec: InputSpec) -> ray.data.Dataset:
    """Return one row per image, in any order, decoded by tasks.

    Args:
        members: Rows of `dermaray.data.members.MEMBER_SCHEMA`.
        spec: What images become.

    Returns:
        A dataset of `image_id`, `uri`, `sha256` (of the bytes; empty where they were not read whole), `reason` and
        `message` (both empty where the image was decoded), `width` and `height` of the original in pixels (0 where
        unknown), and `image`, uint8 [height, width, 3] (black where not decoded).
    """
    dataset = ray.data.from_arrow(blocks_of(members))
    # On few CPUs a large network may need longer for a block than Ray Data waits for a sign of life.
    dataset.context.execution_no_progress_timeout_s = -1
    return dataset.map_batches(_Decode(spec), batch_format="pyarrow", batch_size=None, max_retries=RETRIES)


def score_stream(members: pa.Table, artifact: Artifact) -> ray.data.Dataset:
    """Return one row per image, in any order, scored by one actor with the Keras engine.

    Args:
        members: See `decode_stream`.
        artifact: The model; its folder must be readable from every node.

    Returns:
        What `decode_stream` does, with what `Decided` holds in place of `image`: zeros where not scored.
    """
    return scored(decode_stream(members, artifact.input_spec), artifact, Actors(), max_task_retries=RETRIES)


def scored(
    decoded: ray.data.Dataset,
    artifact: Artifact,
    actors: Actors,
    score: "type[Score] | None" = None,
    **ray_remote_args: Any,
) -> ray.data.Dataset:
    """Score the images of a dataset of decoded ones, in actors; see `score_stream`."""
    # A block is that of one task: what the network sees together, and so its rounding, is the same in every run.
    return decoded.map_batches(
        score or Score,
        fn_constructor_args=(artifact, actors.engine),
        batch_format="numpy",
        batch_size=None,
        concurrency=actors.count,
        num_gpus=actors.gpus,
        **ray_remote_args,
    )


class Score:
    """Hold a model and score what was decoded.

    Args:
        artifact: The model.
        engine: What runs it.
    """

    def __init__(self, artifact: Artifact, engine: EngineName) -> None:
        self._predictor = Predictor(artifact, open_engine(artifact, engine))

    def __call__(self, batch: Batch) -> Batch:
        """Replace `image` by what is decided on it: zeros where `reason` says that there is none."""
        good = batch["reason"] == ""
        decided = self._predictor.decide(batch.pop("image")[good])
        told = {name: values for name, values in vars(decided).items() if values is not None}
        return {**batch, **{name: _spread(values, good) for name, values in told.items()}}


class _Decode:
    """Read and decode members; yields as it goes, so that a long archive is never held whole."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def __call__(self, members: pa.Table) -> Iterator[Batch]:
        yield from batches_of(image_row(member, self._spec) for member in read_members(members))


def image_row(member: Member, spec: InputSpec) -> Batch:
    """Decode one image to a row of `decode_stream`."""
    # What is larger was not read to its end.
    whole = not member.error and len(member.data) <= MAX_BYTES
    digest = hashlib.sha256(member.data).hexdigest() if whole else ""
    row: Batch = {"image_id": member.image_id, "uri": member.uri, "sha256": digest}
    try:
        decoded = member.decode(spec)
    except ImageError as error:
        return {**row, **lost(error, spec)}
    size = {"width": decoded.width, "height": decoded.height}
    return {**row, "reason": "", "message": "", **size, "image": decoded.pixels}


def lost(error: ImageError, spec: InputSpec) -> Batch:
    """Return what a row has of an image that could not be decoded."""
    blank = np.zeros(spec.shape, np.uint8)
    return {"reason": error.reason, "message": str(error), "width": 0, "height": 0, "image": blank}


def batches_of(rows: Iterable[Batch]) -> Iterator[Batch]:
    """Gather rows into batches of columns, as many as a network sees at a time."""
    gathered: list[Batch] = []
    for row in rows:
        gathered.append(row)
        if len(gathered) == ENGINE_BATCH:
            yield _columns(gathered)
            gathered = []
    if gathered:
        yield _columns(gathered)


def _spread(values: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Give values of the good rows to them, and zeros to the others."""
    spread = np.zeros((len(good), *values.shape[1:]), values.dtype)
    spread[good] = values
    return spread


def _columns(rows: list[Batch]) -> Batch:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
