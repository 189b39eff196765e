"""Ray Data streams of images: read or decoded, and augmented, where there are CPUs; delivered in order."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.interfaces.ref_bundle import BlockEntry, BlockSlice, RefBundle
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.data._internal.logical.interfaces import LogicalPlan
from ray.data._internal.logical.operators import InputData
from ray.data._internal.stats import DatasetStats
from ray.data.block import BlockMetadata

from dermaray.augmentation.engines import Engine, build_augmenter, takes_whole_pictures
from dermaray.data.archive import files_listing
from dermaray.data.frames import FrameCache, FrameLayout, frame_layout, node_folder
from dermaray.data.members import Member, read_members
from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec

IntArray = npt.NDArray[np.int32]

BLOCK_ROWS = 128
"""Images per task of those that see an image once: enough to drown a task's overhead."""

STREAM_ROWS = 256
"""Images per task of a stream, at most: to read a frame is cheaper than to decode it, so overhead weighs more."""

STREAM_BYTES = 32 * 1024 * 1024
"""Pixels per task of a stream, at most. A task then ends with its one block; one that had several would hold its actor
while nobody takes them, and the stream might wait for another task of that same actor."""

TASKS_PER_ACTOR = 3
"""That an actor works through or has waiting. It takes Ray Data some tenths of a second to note that a task has ended
and to hand out another."""

ACTOR_CPUS = 0.01
"""What an actor holds of Ray's CPUs: next to nothing, so that none ever waits for what training, another stream or
another run holds. A stream whose actor waits, at its start or after a node was lost, would hold up all workers."""

RETRIES = 3
"""How often a task is begun again whose process has died; by default that is without end, and an image that kills its
decoder would keep a job for ever."""

REST_SECONDS = 1.0
"""Between two looks of Ray Data at its tasks, at most, while the consumer has blocks to take; a tenth of it where there
are none and the consumer is busy still."""


@dataclass(frozen=True)
class ImageTable:
    """The images that a stream draws from, known to every task by position.

    All columns are arrays, which tasks read where they lie in the object store: none unpacks the table.

    Attributes:
        image_ids: Strings, one per image.
        uris: Strings, one per image.
        sha256s: Of the files' bytes, 64 hexadecimal digits each.
        labels: Class indices, int32 [N].
        heights: In pixels, upright, int32 [N].
        widths: As `heights`.
        digest: Differs where any image's URI or bytes differ, or their order.
    """

    image_ids: pa.StringArray
    uris: pa.StringArray
    sha256s: pa.StringArray
    labels: IntArray
    heights: IntArray
    widths: IntArray
    digest: str

    def frames(self, spec: InputSpec) -> FrameLayout:
        """Return where the images' frames lie in the cache of a node."""
        return frame_layout(self.digest, self.heights, self.widths, spec)


@dataclass(frozen=True)
class Recipe:
    """How a stream augments.

    Attributes:
        operations: See `dermaray.augmentation.recipe`; empty for none.
        seed: The run's seed.
        engine: See `dermaray.augmentation.engines.build_augmenter`.
    """

    operations: Sequence[dict[str, Any]] = ()
    seed: int = 0
    engine: Engine = "fused"


class _ReadRows:
    """Turn plan rows (`row`, `epoch`, `draw`, `weight`) into images; lives in Ray Data's actors."""

    def __init__(self, images: ImageTable, layout: FrameLayout, recipe: Recipe, spec: InputSpec, cached: bool) -> None:
        # Actors share the cores out among them; threads within one would only get in each other's way.
        cv2.setNumThreads(1)
        self._images, self._layout, self._spec = images, layout, spec
        self._augment = build_augmenter(recipe.operations, spec, recipe.seed, recipe.engine)
        self._as_they_are = not recipe.operations
        self._whole = takes_whole_pictures(recipe.operations, recipe.engine)
        self._cached = cached and not self._whole

    def __call__(self, plan: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        rows = plan["row"]
        pixels = np.empty((len(rows), *self._spec.shape), np.uint8)
        problems = np.full(len(rows), "", dtype=object)
        with FrameCache(node_folder() if self._cached else None, self._layout) as cache:
            for i, frame in self._frames(rows, pixels, problems, cache):
                if frame.base is pixels:
                    continue  # It was read to where it belongs.
                row = rows[i]
                size, image_id = self._size(row), self._images.image_ids[row].as_py()
                pixels[i] = self._augment(frame, size, image_id, int(plan["epoch"][i]), int(plan["draw"][i]))
        labels = self._images.labels[rows]
        return {"image": pixels, "label": labels, "weight": plan["weight"], "problem": problems.astype(str)}

    def _frames(
        self, rows: IntArray, pixels: UInt8Array, problems: npt.NDArray[Any], cache: FrameCache
    ) -> Iterator[tuple[int, UInt8Array]]:
        """Yield positions in `rows` with their frames: those that are there, then those that must be decoded."""
        there = cache.holds(rows)
        for i in np.flatnonzero(there).tolist():
            shape = (*self._layout.shapes[rows[i]], 3)
            in_place = self._as_they_are and shape == self._spec.shape
            frame = pixels[i] if in_place else np.empty(shape, np.uint8)
            there[i] = cache.read(rows[i], frame)
            if there[i]:
                yield i, frame
        missing = np.flatnonzero(~there)
        uris = self._images.uris.take(pa.array(rows[missing])).to_pylist()
        for i, member in zip(missing.tolist(), read_members(files_listing(uris)), strict=True):
            try:
                frame = self._decode(member, self._images.sha256s[rows[i]].as_py())
            except ImageError as error:
                problems[i] = f"{member.uri} was usable when it was prepared, now {error}. Prepare the data again"
                pixels[i] = 0
                continue
            if self._cached:
                cache.write(rows[i], frame)
            yield i, frame

    def _decode(self, member: Member, sha256: str) -> UInt8Array:
        # Another picture in its place would be trained on unseen: audit, splits and provenance speak of the first.
        if member.error is None and hashlib.sha256(member.data).hexdigest() != sha256:
            raise ImageError("unreadable", "it holds other bytes")
        return member.decode_frame(None if self._whole else self._spec).pixels

    def _size(self, row: int) -> tuple[int, int]:
        return int(self._images.heights[row]), int(self._images.widths[row])


def blocks_of(table: pa.Table, rows: int = BLOCK_ROWS) -> list[pa.Table]:
    """Cut a table into the blocks that Ray Data gives to one task each."""
    return [table.slice(start, rows) for start in range(0, table.num_rows, rows)]


def block_rows(spec: InputSpec, batch_size: int) -> int:
    """Return the images of a stream's block: whole batches, where one fits, so that none is put together of two."""
    rows = max(1, min(STREAM_ROWS, STREAM_BYTES // math.prod(spec.shape)))
    return rows if batch_size > rows else rows - rows % batch_size


def image_stream(
    plan: pa.Table,
    images: ImageTable,
    spec: InputSpec,
    recipe: Recipe,
    rows: int,
    cached: bool = True,
    actors: int = 1,
) -> ray.data.Dataset:
    """Return the images that a plan names, decoded and augmented, in the plan's order.

    Args:
        plan: Columns `row` (position in `images`), `epoch`, `draw` (int32) and `weight` (float32).
        images: What `row` points into.
        spec: Size and resizing.
        recipe: How to augment.
        rows: Images per block; see `block_rows`.
        cached: Keep frames on the disk of the node that decoded them, and read them there from then on.
        actors: How many processes decode and augment, as long as the stream lasts. More than it has blocks are not
            started.

    Returns:
        A dataset of `image` uint8 [height, width, 3], `label` int32, `weight` float32, and `problem`: empty, or why
        the image could not be read, which is then black. Raised in a task, it would arrive as one of Ray's errors.
    """
    dataset = sliced(blocks_of(plan, rows))
    dataset.context.execution_options.preserve_order = True
    # A user's mistake arrives as what it is.
    dataset.context.raise_original_map_exception = True
    # A stream may rest as long as an epoch of training takes, or the validation between two.
    dataset.context.execution_no_progress_timeout_s = -1
    callbacks = dataset.context.custom_execution_callback_classes
    dataset.context.custom_execution_callback_classes = [*callbacks, _Rest]
    count = min(actors, -(-plan.num_rows // rows))
    return dataset.map_batches(
        _ReadRows,
        fn_constructor_args=(images, images.frames(spec), recipe, spec, cached),
        batch_format="numpy",
        batch_size=None,
        num_cpus=ACTOR_CPUS,
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=TASKS_PER_ACTOR),
        max_task_retries=RETRIES,
    )


class _Rest(ExecutionCallback):  # type: ignore[misc]
    """Let Ray Data's scheduling rest while the consumer waits for nothing.

    It has a thread in the consumer's process, which waits for tasks alone. Where all of them wait for the consumer it
    would turn without end (ray-project/ray#65060 tells of it in passing): a whole core, and much of the interpreter's
    lock, which training needs.
    """

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Wait, once around the loop, until the consumer takes a block or finds none; see `REST_SECONDS`."""
        _, state = executor._output_node
        blocks = state.output_queue.num_blocks
        seconds = REST_SECONDS if blocks else REST_SECONDS / 10
        until = time.monotonic() + seconds
        while time.monotonic() < until and not executor._shutdown:
            if state.num_waiting_consumers or state.output_queue.num_blocks < blocks:
                return
            time.sleep(seconds / 20)


def sliced(tables: Sequence[pa.Table]) -> ray.data.Dataset:
    """Make a dataset with a block for each table, of at least one row and one schema; they are slices of one object.

    Of Ray's public constructors each puts and asks for every block by itself, some milliseconds each: two minutes
    for ten epochs of 400,000 images. Slices are what Ray cuts its own blocks into; here they are cut beforehand.
    """
    table = pa.concat_tables(tables).combine_chunks()
    size = BlockMetadata(num_rows=table.num_rows, size_bytes=table.nbytes, exec_stats=None, input_files=None)
    blocks = (BlockEntry(ray.put(table), size),)
    ends = np.cumsum([len(part) for part in tables]).tolist()
    bundles = [
        RefBundle(blocks, table.schema, owns_blocks=False, slices=(BlockSlice(start, end),))
        for start, end in pairwise([0, *ends])
    ]
    context = ray.data.DataContext.get_current().copy()
    stats = DatasetStats(metadata={"Plan": []}, parent=None)
    return ray.data.Dataset(LogicalPlan(InputData(input_data=bundles), context), context, stats)
