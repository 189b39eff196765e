"""The gate: no training and no evaluation on splits that share a lesion, a patient, a picture or a parent image."""

from dermaray.data.groups import crossings
from dermaray.data.manifest import Manifest
from dermaray.errors import LeakError

_BONDS = {
    "file": "sha256",
    "parent": "parent_id",
    "lesion": "lesion_id",
    "patient": "patient_id",
    "duplicate cluster": "duplicate_cluster",
    "group": "group_id",
}
"""What binds images, most telling first, and the manifest's column for it."""

_NAMED = 4


def find_leaks(manifest: Manifest) -> list[str]:
    """Say of everything that crosses the manifest's splits, or its folds, what it is and which images it binds."""
    table = manifest.table
    image_ids, splits, folds = (table[c].to_pylist() for c in ("image_id", "split", "fold"))
    sides = [split if fold is None else f"fold {fold}" for split, fold in zip(splits, folds, strict=True)]
    keys = {bond: table[column].to_pylist() for bond, column in _BONDS.items()}
    return [crossing.describe(image_ids, sides) for crossing in crossings(keys, sides)]


def check_gate(manifest: Manifest, *, allow: bool = False) -> list[str]:
    """Refuse a manifest that leaks.

    Args:
        manifest: What is to be trained or evaluated on.
        allow: Let it pass all the same.

    Returns:
        The leaks, for the record; empty unless `allow`.

    Raises:
        LeakError: Something crosses splits and `allow` is false.
    """
    leaks = find_leaks(manifest)
    if leaks and not allow:
        more = f"; and {len(leaks) - _NAMED:,} more" if len(leaks) > _NAMED else ""
        raise LeakError(
            f"the splits of this manifest leak, so a figure measured on it would be an illusion. "
            f"{'; '.join(leaks[:_NAMED])}{more}. Prepare the data again (dermaray prepare), or add --allow-leaks"
        )
    return leaks
