"""Every image of a source read once, on all of the cluster's CPUs: digest, size, type, colours, fingerprint."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data
from PIL import Image

from dermaray.data.archive import files_listing
from dermaray.data.members import Member, read_members
from dermaray.data.streams import RETRIES, blocks_of
from dermaray.errors import ImageError
from dermaray.images.appearance import appearance, why_unlike_dermoscopy
from dermaray.images.fingerprint import FINGERPRINT_SPEC, ORIENTATIONS, THUMBNAIL_SHAPE, fingerprint
from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec

Progress = Callable[[int], None]

_PREVIEW_SPEC = InputSpec(height=160, width=160, resize="pad")


@dataclass(frozen=True)
class Inspected:
    """What reading one image told.

    Attributes:
        sha256: Of the bytes, 64 hexadecimal digits; empty where there are none.
        format: One of `dermaray.images.decode.FORMATS`, `HEIC` or `DICOM`; empty where it cannot be decoded.
        width: Pixels, upright; 0 where it cannot be decoded.
        height: Likewise.
        problem: Why it cannot be used, or empty.
        unlike: What about it is unlike dermoscopy, or empty.
        hashes: See `Fingerprint`; None where it cannot be decoded.
        thumbnail: Likewise.
    """

    sha256: str
    format: str
    width: int
    height: int
    problem: str
    unlike: str
    hashes: npt.NDArray[np.uint64] | None
    thumbnail: UInt8Array | None


_NOTHING = Inspected("", "", 0, 0, "", "", None, None)


def inspect_images(uris: Sequence[str | None], progress: Progress) -> list[Inspected]:
    """Read and decode every image, on the connected Ray cluster.

    Args:
        uris: Paths, or URIs of an object store; None where there is no file.
        progress: Called with the number of images read since the last call.

    Returns:
        One per URI, in the order given; all empty where there is no file. An image takes about 2 KB of memory here.

    Raises:
        StoreError: An object store cannot be reached.
    """
    result = [_NOTHING] * len(uris)
    there = [position for position, uri in enumerate(uris) if uri is not None]
    for row in _mapped([uri for uri in uris if uri is not None], _inspect_batch, progress):
        result[there[row["position"]]] = Inspected(
            row["sha256"],
            row["format"],
            row["width"],
            row["height"],
            row["problem"],
            row["unlike"],
            _array(row["hashes"], np.uint64, (ORIENTATIONS,)),
            _array(row["thumbnail"], np.uint8, THUMBNAIL_SHAPE),
        )
    progress(len(uris) - len(there))
    return result


def _array(data: bytes | None, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
    return None if data is None else np.frombuffer(data, dtype).reshape(shape)


def preview_images(uris: Sequence[str]) -> dict[str, bytes]:
    """Return a small JPEG per URI, for a page; images that cannot be decoded are left out."""
    rows = _mapped(uris, _preview_batch, lambda _: None)
    return {uris[row["position"]]: row["jpeg"] for row in rows if row["jpeg"] is not None}


def _mapped(uris: Sequence[str], task: Callable[[pa.Table], pa.Table], progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield the rows that a task makes of each image, in any order, with the image's `position`."""
    if not uris:
        return
    members = files_listing(list(uris)).append_column("position", pa.array(range(len(uris)), pa.int64()))
    dataset = ray.data.from_arrow(blocks_of(members))
    # A store's outage arrives as what it is.
    dataset.context.raise_original_map_exception = True
    mapped = dataset.map_batches(task, batch_format="pyarrow", batch_size=None, max_retries=RETRIES)
    for batch in mapped.iter_batches(batch_format="pyarrow", batch_size=None):
        yield from batch.to_pylist()
        progress(batch.num_rows)


_INSPECTED = pa.schema(
    [
        pa.field("sha256", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("problem", pa.string()),
        pa.field("unlike", pa.string()),
        pa.field("hashes", pa.binary()),
        pa.field("thumbnail", pa.binary()),
    ]
)


def _inspect_batch(members: pa.Table) -> pa.Table:
    rows = [_inspect(member) for member in read_members(members)]
    return pa.Table.from_pylist(rows, _INSPECTED).append_column("position", members["position"])


def _inspect(member: Member) -> dict[str, Any]:
    row: dict[str, Any] = {"sha256": hashlib.sha256(member.data).hexdigest() if member.data else "", "format": ""}
    row |= {"width": 0, "height": 0, "problem": "", "unlike": "", "hashes": None, "thumbnail": None}
    try:
        decoded = member.decode(FINGERPRINT_SPEC)
    except ImageError as error:
        return row | {"problem": f"{error.reason}: {error}"}
    seen = fingerprint(decoded.pixels)
    return row | {
        "format": decoded.format,
        "width": decoded.width,
        "height": decoded.height,
        "unlike": why_unlike_dermoscopy(decoded.width, decoded.height, appearance(decoded.pixels)) or "",
        "hashes": seen.hashes.tobytes(),
        "thumbnail": seen.thumbnail.tobytes(),
    }


def _preview_batch(members: pa.Table) -> pa.Table:
    rows = [{"jpeg": _preview(member)} for member in read_members(members)]
    return pa.Table.from_pylist(rows, pa.schema([("jpeg", pa.binary())])).append_column("position", members["position"])


def _preview(member: Member) -> bytes | None:
    try:
        pixels = member.decode(_PREVIEW_SPEC).pixels
    except ImageError:
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
