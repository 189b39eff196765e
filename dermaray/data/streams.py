"""Ray Data streams of decoded images: read, decoded and augmented where there are CPUs, delivered in order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from dermaray.data.archive import files_listing, read_members
from dermaray.errors import ImageError
from dermaray.images.augment import Augmenter
from dermaray.images.spec import InputSpec

BLOCK_ROWS = 128
"""Images per task: enough to drown a task's overhead."""

BLOCK_BYTES = 32 * 1024 * 1024
"""Pixels per task, at most. A task then ends with its one block; one that had several would hold its CPU while nobody
takes them, and where CPUs are few the stream that is waited for would never get one."""


@dataclass(frozen=True)
class ImageTable:
    """The images that a stream draws from, known to every task by position.

    Attributes:
        image_ids: One per image.
        uris: One per image.
        labels: Class indices, int32 [N].
    """

    image_ids: Sequence[str]
    uris: Sequence[str]
    labels: npt.NDArray[np.int32]


class _DecodeRows:
    """Turn plan rows (`row`, `epoch`, `draw`, `weight`) into images; runs in Ray Data's tasks."""

    def __init__(self, images: ImageTable, spec: InputSpec, recipe: Sequence[dict[str, Any]], seed: int) -> None:
        self._images, self._spec, self._recipe, self._seed = images, spec, recipe, seed

    def __call__(self, plan: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        augment = Augmenter(self._recipe, self._seed)
        rows = plan["row"]
        members = read_members(files_listing([self._images.uris[row] for row in rows]))
        pixels = np.zeros((len(rows), *self._spec.shape), np.uint8)
        problems = np.full(len(rows), "", dtype=object)
        for i, member in enumerate(members):
            try:
                decoded = member.decode(self._spec).pixels
            except ImageError as error:
                problems[i] = f"{member.uri} was usable when it was prepared, now {error}. Prepare the data again"
                continue
            image_id, epoch, draw = self._images.image_ids[rows[i]], int(plan["epoch"][i]), int(plan["draw"][i])
            pixels[i] = augment(decoded, image_id, epoch, draw)
        labels = self._images.labels[rows]
        return {"image": pixels, "label": labels, "weight": plan["weight"], "problem": problems.astype(str)}


def blocks_of(table: pa.Table, rows: int = BLOCK_ROWS) -> list[pa.Table]:
    """Cut a table into the blocks that Ray Data gives to one task each."""
    return [table.slice(start, rows) for start in range(0, table.num_rows, rows)]


def image_stream(
    plan: pa.Table, images: ImageTable, spec: InputSpec, recipe: Sequence[dict[str, Any]], seed: int
) -> ray.data.Dataset:
    """Return the images that a plan names, decoded and augmented, in the plan's order.

    Args:
        plan: Columns `row` (position in `images`), `epoch`, `draw` (int32) and `weight` (float32).
        images: What `row` points into.
        spec: Size and resizing.
        recipe: Augmentor operations; empty for none.
        seed: The run's seed.

    Returns:
        A dataset of `image` uint8 [height, width, 3], `label` int32, `weight` float32, and `problem`: empty, or why
        the image could not be read, which is then black. Raised in a task, it would arrive as one of Ray's errors.
    """
    rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES // math.prod(spec.shape)))
    dataset = ray.data.from_arrow(blocks_of(plan, rows))
    decode = _DecodeRows(images, spec, recipe, seed)
    return dataset.map_batches(decode, batch_format="numpy", batch_size=None)
