"""Scoring as one step of somebody's own Ray Data pipeline."""

from functools import cached_property
from pathlib import PurePath

import cv2
import pyarrow as pa
import ray.data

from dermaray.data.image_tables import IDS, PATHS, binary, texts
from dermaray.data.members import Member
from dermaray.data.source import stem_of
from dermaray.data.streams import BLOCK_ROWS, RETRIES
from dermaray.errors import DataError, ImageError
from dermaray.models.artifact import Artifact
from dermaray.models.bulk import Actors, Score, batches_of, image_row
from dermaray.models.engines import EngineName
from dermaray.models.own_process import return_memory
from dermaray.models.rows import score_rows, score_schema

_NAMES = ("image_id", "uri", "sha256")
"""Columns that a dataset may have by itself; what it calls an image stays its name."""


def score_dataset(images: ray.data.Dataset, artifact: Artifact, column: str, actors: Actors) -> ray.data.Dataset:
    """Score the images of a dataset; see `jobs.score.score_archive`."""
    return images.map_batches(
        _ScoreRows,
        fn_constructor_args=(artifact, actors.engine, column),
        batch_format="pyarrow",
        batch_size=BLOCK_ROWS,
        num_cpus=1,
        num_gpus=actors.gpus,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors.count),
        max_task_retries=RETRIES,
    )


class _ScoreRows:
    """Hold a model, and put what it says of images in the place of their bytes."""

    def __init__(self, artifact: Artifact, engine: EngineName, column: str) -> None:
        return_memory()
        cv2.setNumThreads(1)
        self._artifact, self._engine, self._column = artifact, engine, column

    @cached_property
    def _score(self) -> Score:
        """The model, opened for the first images: what a constructor raises Ray Data tries again for half a minute."""
        return Score(self._artifact, self._engine)

    def __call__(self, table: pa.Table) -> pa.Table:
        if self._column not in table.schema.names:
            have = ", ".join(table.schema.names)
            raise DataError(f"the dataset has no column {self._column} of images' bytes. It has: {have}")
        hidden = sorted(set(table.schema.names) & set(score_schema(self._artifact).names) - {*_NAMES, self._column})
        if hidden:
            raise DataError(f"rename the dataset's columns {', '.join(hidden)}: the scores have such columns too")
        spec = self._artifact.input_spec
        batches = batches_of(image_row(member, spec) for member in self._members(table))
        scored = [score_rows(self._score(batch), self._artifact) for batch in batches]
        rows = pa.concat_tables([*scored, score_schema(self._artifact).empty_table()])
        kept = [name for name in table.schema.names if name != self._column]
        rows = rows.drop_columns([name for name in kept if name in _NAMES and name in rows.schema.names])
        for position, name in enumerate(kept):
            rows = rows.add_column(position, table.schema.field(name), table[name])
        return rows

    def _members(self, table: pa.Table) -> list[Member]:
        uris = _texts(table, PATHS)
        ids = _texts(table, IDS)
        return [
            Member(image_id or stem_of(PurePath(uri)), uri, data or b"", _problem(data))
            for image_id, uri, data in zip(ids, uris, binary(table[self._column]).to_pylist(), strict=True)
        ]


def _problem(data: bytes | None) -> ImageError | None:
    return ImageError("unreadable", "the row has no bytes") if data is None else None


def _texts(table: pa.Table, names: tuple[str, ...]) -> list[str]:
    """Return the first of some columns that is there, as text; nothing but empty texts where none is."""
    name = next((name for name in names if name in table.schema.names), None)
    return [""] * table.num_rows if name is None else [value or "" for value in texts(table[name])]
