"""What belongs together, and whether a split parts it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Keys = Mapping[str, Sequence[str | None]]
"""For each bond (`lesion`, `patient`, ...) a key per image: images of one key belong together; None binds nothing."""


@dataclass(frozen=True)
class Crossing:
    """Images that belong together and are in different splits.

    Attributes:
        bond: What binds them: a key of `Keys`.
        key: Which lesion, patient, ...
        positions: All images of that key.
    """

    bond: str
    key: str
    positions: tuple[int, ...]

    def describe(self, image_ids: Sequence[str], splits: Sequence[str | None]) -> str:
        """Name the bond, and one image on each side: what a person needs to see for himself."""
        example = {str(splits[p]): image_ids[p] for p in reversed(self.positions) if splits[p] is not None}
        # A digest says nothing to a person; its beginning is enough to find it by.
        key = self.key[:12] if self.bond == "file" else self.key
        return f"{self.bond} {key}: " + ", ".join(f"{example[side]} in {side}" for side in sorted(example))


def components(size: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the connected component of each of `size` nodes, numbered by their smallest members' order."""
    pairs = np.fromiter((node for edge in edges for node in edge), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return [int(c) for c in connected_components(graph, directed=False)[1]]


def named_components(image_ids: Sequence[str], edges: Iterable[tuple[int, int]]) -> list[str]:
    """Name the connected component of each image after the first of its images' ids."""
    component = components(len(image_ids), edges)
    first: dict[int, str] = {}
    for image_id, c in zip(image_ids, component, strict=True):
        first[c] = min(first.get(c, image_id), image_id)
    return [first[c] for c in component]


def group_ids(image_ids: Sequence[str], keys: Keys) -> list[str]:
    """Name the group of each image: all that any chain of bonds connects, named after its first image's id."""
    return named_components(image_ids, (edge for column in keys.values() for edge in edges_of(column)))


def crossings(keys: Keys, splits: Sequence[str | None]) -> list[Crossing]:
    """Return what the splits part; an image without a split crosses nothing.

    Images that several bonds hold together (the copy of a file is also of its lesion) are told of once, under the bond
    that comes first in `keys`. The first of each bond comes first, so that the beginning shows all that is wrong.
    """
    found: dict[tuple[int, ...], Crossing] = {}
    for bond, column in keys.items():
        for key, members in members_of(column).items():
            positions = tuple(members)
            if len({splits[p] for p in positions} - {None}) > 1:
                found.setdefault(positions, Crossing(bond, key, positions))
    first = {crossing.bond: crossing for crossing in reversed(found.values())}
    return sorted(found.values(), key=lambda crossing: crossing is not first[crossing.bond])


def edges_of(column: Sequence[str | None]) -> Iterable[tuple[int, int]]:
    """Yield pairs of images that connect all those of one key."""
    for positions in members_of(column).values():
        yield from ((positions[0], other) for other in positions[1:])


def members_of(column: Sequence[str | None]) -> dict[str, list[int]]:
    """Return the positions of the images of each key."""
    members: dict[str, list[int]] = {}
    for position, key in enumerate(column):
        if key is not None:
            members.setdefault(key, []).append(position)
    return members
