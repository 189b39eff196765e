"""Patterns of files: each file that matches once, and what is passed over is counted."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dermaray.data.archive import joined
from dermaray.data.inputs import stream_inputs
from dermaray.data.members import read_members
from tests.archives import IMAGES, OTHERS, make_folder, png


def uris(place: Path) -> list[str]:
    listing = joined(stream_inputs([str(place)]))
    return [member.uri for member in read_members(listing.members)]


def test_a_link_that_leads_back_doubles_nothing(tmp_path: Path) -> None:
    folder, elsewhere = make_folder(tmp_path / "folder", IMAGES), make_folder(tmp_path / "elsewhere", {"z.png": png(3)})
    (folder / "loop").symlink_to(folder)
    (folder / "zlink").symlink_to(elsewhere)
    found = uris(folder / "**" / "*.[pP][nN][gG]")
    assert sorted(Path(uri).name for uri in found) == ["a.png", "b.PNG", "c.png", "z.png"]


def test_folders_that_match_are_counted(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", IMAGES | OTHERS)
    assert joined(stream_inputs([str(folder / "*")])).ignored == {".txt": 1, "README": 1, "nested/": 1}


def test_a_table_that_is_called_manifest_hides_no_images(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", IMAGES)
    pq.write_table(pa.table({"path": ["a.png"]}), folder / "manifest.parquet")
    listing = joined(stream_inputs([str(folder)]))
    assert (listing.images, listing.ignored) == (3, {".parquet": 1})
