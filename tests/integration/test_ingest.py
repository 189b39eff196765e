"""Ingest: the same bytes for any number of workers, any block size, cold or cached; and what is wrong is said."""

import hashlib
import os
import shutil
import signal
import time
import uuid
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from benchmarks.processes import below
from cluster.runtime import Cluster
from dermaray.augmentation.engines import build_augmenter
from dermaray.data import streams
from dermaray.data.frames import node_folder, remove_frames
from dermaray.data.manifest import Manifest
from dermaray.data.streams import ImageTable, Recipe, block_rows, image_stream
from dermaray.data.synthetic import render_lesion
from dermaray.errors import DataError
from dermaray.images.decode import decode_frame
from dermaray.images.spec import InputSpec
from dermaray.training.feed import started, worker_stream
from dermaray.training.ingest import distributed_batches, rebatched
from dermaray.training.plan import Plan, training_plan
from dermaray.training.task import image_table

SPEC = InputSpec(height=32, width=48, resize="crop")
RECIPE = Recipe(
    (
        {"operation": "flip_random", "probability": 0.5},
        {"operation": "rotate", "probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10},
        {"operation": "random_brightness", "probability": 0.6, "min_factor": 0.7, "max_factor": 1.3},
    ),
    seed=3,
)
EPOCHS, BATCH = 2, 12
COLUMNS = ("image", "label", "weight")


def table_in(folder: Path, manifest: Path, images: Path) -> ImageTable:
    """Return the training images, copied to a folder where a test may damage them, with frames of their own."""
    own = shutil.copytree(images, folder)
    found = Manifest.read(manifest)
    whole = image_table(found, found.rows("train"))
    uris = [str(own / Path(uri).relative_to(images)) for uri in whole.uris.to_pylist()]
    return replace(whole, uris=pa.array(uris), digest=uuid.uuid4().hex)


@pytest.fixture
def table(ray_cluster: Cluster, manifest: Path, images: Path, tmp_path: Path) -> ImageTable:
    return table_in(tmp_path / "images", manifest, images)


@pytest.fixture(scope="module")
def truth_and_frames(
    ray_cluster: Cluster, manifest: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """The batches of the training images, and the frames that making them has left."""
    table = table_in(tmp_path_factory.mktemp("whole") / "images", manifest, images)
    return streamed(table), place_of(table)


@pytest.fixture
def cached(table: ImageTable, truth_and_frames: tuple[list[str], Path]) -> ImageTable:
    """The table, whose frames are all there."""
    shutil.copytree(truth_and_frames[1], place_of(table))
    return table


@pytest.fixture
def truth(truth_and_frames: tuple[list[str], Path]) -> list[str]:
    return truth_and_frames[0]


def plan_of(table: ImageTable) -> Plan:
    return training_plan(table.labels, EPOCHS, BATCH, "equal", seed=1)


def digest(*columns: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns)).hexdigest()


def streamed(
    table: ImageTable, workers: int = 1, rows: int = 24, cached: bool = True, recipe: Recipe = RECIPE, actors: int = 1
) -> list[str]:
    """Return the SHA-256 of every global batch, put together of the workers' parts."""
    parts = []
    for rank in range(workers):
        stream = image_stream(plan_of(table).shard(rank, workers), table, SPEC, recipe, rows, cached, actors)
        blocks = list(stream.iter_batches(batch_size=None, batch_format="numpy"))
        assert {problem for block in blocks for problem in block["problem"]} == {""}
        parts.append(list(rebatched([tuple(block[c] for c in COLUMNS) for block in blocks], BATCH // workers)))
    assert {len(part) for part in parts} == {plan_of(table).steps}
    return [digest(*map(np.concatenate, zip(*batches, strict=True))) for batches in zip(*parts, strict=True)]


def expected(table: ImageTable, recipe: Recipe = RECIPE, spec: InputSpec = SPEC) -> list[str]:
    """Return the same as `streamed`, made here, one image after the other."""
    plan = plan_of(table)
    augment = build_augmenter(recipe.operations, SPEC, recipe.seed, recipe.engine)
    decoded = [decode_frame(Path(uri).read_bytes(), spec) for uri in table.uris.to_pylist()]
    ids = table.image_ids.to_pylist()

    def pixels(step: int) -> np.ndarray:
        made = []
        for i in range(step * BATCH, (step + 1) * BATCH):
            row = plan.row[i]
            size = decoded[row].height, decoded[row].width
            made.append(augment(decoded[row].pixels, size, ids[row], int(plan.epoch[i]), int(plan.draw[i])))
        return np.stack(made)

    parts = [slice(step * BATCH, (step + 1) * BATCH) for step in range(plan.steps)]
    return [digest(pixels(i), table.labels[plan.row[p]], plan.weight[p]) for i, p in enumerate(parts)]


def place_of(table: ImageTable) -> Path:
    folder = node_folder()
    assert folder is not None
    return folder / table.frames(SPEC).key


def test_one_worker_gives_the_batches_that_are_made_one_by_one(cached: ImageTable, truth: list[str]) -> None:
    assert len(set(truth)) == len(truth)
    assert truth == expected(cached)
    assert set(np.flatnonzero(np.fromfile(place_of(cached) / "present", np.uint8))) == set(plan_of(cached).row)


@pytest.mark.parametrize(("workers", "rows", "actors"), [(2, 20, 2), (3, 62, 1)])
def test_any_number_of_workers_and_any_block_size_give_the_same_batches(
    workers: int, rows: int, actors: int, cached: ImageTable, truth: list[str]
) -> None:
    # Such blocks part batches of 6 and of 4; every frame is there, also for the first epoch.
    assert streamed(cached, workers, rows, actors=actors) == truth


def test_an_actor_that_is_killed_costs_time_alone(table: ImageTable) -> None:
    plan = pa.concat_tables([plan_of(table).shard(0, 1)] * 20)
    stream = image_stream(plan, table, SPEC, Recipe(), 24, False)
    labels: list[int] = []
    actors: set[int] = set()
    for number, block in enumerate(stream.iter_batches(batch_size=None, batch_format="numpy")):
        actors.update(actors_of_streams())
        if number == 1:
            (actor,) = actors
            os.kill(actor, signal.SIGKILL)
        labels += block["label"].tolist()
    assert labels == table.labels[plan["row"].to_numpy()].tolist()
    assert len(actors) == 2, "no other took over: it was killed too late"


def actors_of_streams() -> list[int]:
    """Return the processes of the streams' actors that run by now on the shared Ray."""
    name = b"ray::MapWorker(MapBatches(_ReadRows))"
    return [process for process, command in below(os.getpid()).items() if command.startswith(name)]


def test_a_stream_may_rest_for_longer_than_an_epoch(table: ImageTable) -> None:
    stream = image_stream(plan_of(table).shard(0, 1), table, SPEC, RECIPE, 24)
    assert stream.context.execution_no_progress_timeout_s == -1


def test_without_a_cache_the_batches_are_the_same(table: ImageTable, truth: list[str]) -> None:
    assert streamed(table, workers=2, rows=20, cached=False) == truth
    assert not place_of(table).exists()


def test_a_full_cache_needs_no_image(cached: ImageTable, truth: list[str]) -> None:
    for uri in cached.uris.to_pylist():
        Path(uri).unlink()
    assert streamed(cached) == truth


@pytest.mark.parametrize("damage", ["cut", "no folder", "in part"])
def test_a_damaged_cache_costs_time_alone(damage: str, cached: ImageTable, truth: list[str]) -> None:
    place = place_of(cached)
    if damage == "cut":
        with (place / "pixels").open("r+b") as file:
            file.truncate(1000)
    elif damage == "in part":
        present = np.fromfile(place / "present", np.uint8)
        present[::2] = 0
        present.tofile(place / "present")
    else:
        shutil.rmtree(place)
        place.touch()
    try:
        assert streamed(cached) == truth
    finally:
        if damage == "no folder":
            place.unlink()


def test_frames_are_removed_from_every_node(cached: ImageTable) -> None:
    remove_frames([cached.frames(SPEC)])
    assert not place_of(cached).exists()


def test_a_run_leaves_no_frames(model: Path, manifest: Path) -> None:
    found = Manifest.read(manifest)
    spec = InputSpec(height=32, width=48)
    folder = node_folder()
    assert folder is not None
    for split in ("train", "val"):
        assert not (folder / image_table(found, found.rows(split)).frames(spec).key).exists()


def test_the_package_gets_images_of_their_original_size(table: ImageTable) -> None:
    recipe = replace(RECIPE, engine="augmentor")
    sizes = set(zip(table.heights.tolist(), table.widths.tolist(), strict=True))
    few = {size: np.flatnonzero((table.heights == size[0]) & (table.widths == size[1])) for size in sizes}
    rows = max(few.values(), key=len)[:BATCH]
    part = ImageTable(
        table.image_ids.take(pa.array(rows)),
        table.uris.take(pa.array(rows)),
        table.sha256s.take(pa.array(rows)),
        np.zeros(len(rows), np.int32),
        table.heights[rows],
        table.widths[rows],
        "part",
    )
    size = int(part.heights[0]), int(part.widths[0])
    full = InputSpec(height=size[0], width=size[1], scaled_decoding=False)
    assert streamed(part, recipe=recipe) == expected(part, recipe, full)


@pytest.mark.parametrize("mistake", ["is gone", "is damaged", "is another picture"])
def test_an_image_that_changed_since_it_was_prepared_is_named(mistake: str, table: ImageTable) -> None:
    path = Path(table.uris[5].as_py())
    if mistake == "is gone":
        path.unlink()
    elif mistake == "is damaged":
        path.write_bytes(path.read_bytes()[:900])
    else:
        size = int(table.heights[5]), int(table.widths[5])
        path.write_bytes(cv2.imencode(".jpg", render_lesion("nevus", 1, size))[1].tobytes())
    plan = plan_of(table).shard(0, 1)
    stream = worker_stream(plan, table, SPEC, RECIPE, batch_size=BATCH, world_size=1, reserved_cpus=4, cached=True)
    failures: list[Exception] = []
    batches = distributed_batches(tf.distribute.get_strategy(), started(stream), SPEC, BATCH, failures)
    with pytest.raises(tf.errors.OpError):
        for _ in batches:
            pass
    (failure,) = failures
    assert isinstance(failure, DataError)
    said = str(failure)
    assert said.startswith(str(path))
    assert "was usable when it was prepared, now" in said
    assert said.endswith("Prepare the data again")
    if mistake != "is gone":
        assert "it holds other bytes" in said


def test_ending_a_stream_waits_for_no_tuning() -> None:
    batches = distributed_batches(tf.distribute.get_strategy(), iter(()), SPEC, BATCH, [])
    assert batches.options().autotune.enabled is False


def test_a_stream_rests_while_nobody_takes_its_blocks(table: ImageTable, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    class Counted(streams._Rest):
        def on_execution_step(self, executor: object) -> None:
            turns.append(time.monotonic())
            super().on_execution_step(executor)

    monkeypatch.setattr(streams, "_Rest", Counted)
    # More blocks than the object store may hold of this stream.
    plan = training_plan(table.labels, 400, BATCH, "equal", seed=1).shard(0, 1)
    stream = worker_stream(plan, table, SPEC, Recipe(), batch_size=BATCH, world_size=1, reserved_cpus=7, cached=True)
    blocks = iter(stream.iter_batches(batch_size=None))
    rows = len(next(blocks)["label"])
    time.sleep(6)
    before = len(turns)
    time.sleep(2)
    # A turn takes two thousandths of a second; one that finds work to do may be followed by another at once.
    assert 1 <= len(turns) - before <= 8
    assert rows + sum(len(block["label"]) for block in blocks) == plan.num_rows


def test_blocks_hold_whole_batches_where_one_fits() -> None:
    assert block_rows(SPEC, 12) % 12 == 0
    large = InputSpec(height=2048, width=2048)
    assert 1 <= block_rows(large, 32) < 32


@pytest.mark.parametrize("sizes", [[5, 5, 5], [1, 2, 12], [15], [4, 4, 4, 3]])
def test_batches_are_cut_from_blocks_of_any_size(sizes: list[int]) -> None:
    columns = np.arange(sum(sizes)), np.arange(sum(sizes)) * 2
    starts = np.cumsum([0, *sizes])
    blocks = [tuple(c[a:b] for c in columns) for a, b in pairwise(starts)]
    batches = list(rebatched(blocks, 4))
    assert [batch[0].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert all((batch[1] == 2 * batch[0]).all() for batch in batches)
