"""What becomes of each image: policies applied to findings, one after the other, so that each leaves for one reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dermaray.data.examine import Examined
from dermaray.data.findings import KINDS, Case, Policies
from dermaray.data.reference import settled_class, stem_of
from dermaray.data.source import SourceImage
from dermaray.errors import DataError

_ONE_STAYS = ("exact_duplicate", "near_duplicate", "augmented_copy")
_HELD_OUT_FIRST = {"test": 0, "val": 1, "train": 2, None: 3}
_NAMED = 3


@dataclass
class Fates:
    """What became of each image.

    Attributes:
        classes: The class that it ends in; another than the source's where it was relabelled.
        finding: The finding that put it aside, or None for an image that can be used.
        message: What was seen, for an image that was put aside.
        relabelled: The finding for which an image's label was changed, by position.
    """

    classes: list[str | None]
    finding: list[str | None]
    message: list[str]
    relabelled: dict[int, str] = field(default_factory=dict)

    def usable(self) -> list[int]:
        """Return the positions of the images that are left."""
        return [p for p, finding in enumerate(self.finding) if finding is None]

    def put_aside(self, positions: Sequence[int], finding: str, message: str) -> None:
        """Let images leave for a finding."""
        for p in positions:
            self.finding[p], self.message[p] = finding, message


def apply_policies(source: Examined, policies: Policies) -> Fates:
    """Decide for every image whether it can be used, and under which label.

    Raises:
        DataError: Something was found whose policy is `fail`.
    """
    count = len(source.images)
    fates = Fates(list(source.classes), [None] * count, [""] * count)
    for finding in KINDS:
        policy, cases = policies.of(finding), source.detection.findings.get(finding, ())
        if policy == "keep":
            continue
        if policy == "fail" and cases:
            raise DataError(_refusal(finding, cases, source.images))
        for case in cases:
            concerned = _concerned(finding, [p for p in case.positions if fates.finding[p] is None], source, fates)
            if policy == "relabel":
                _relabel(concerned, finding, case.detail, source, fates)
            else:
                fates.put_aside(concerned, finding, case.detail)
    return fates


def _concerned(finding: str, left: list[int], source: Examined, fates: Fates) -> list[int]:
    """Return which images a policy acts on, of those of a case that are left."""
    if finding in _ONE_STAYS:
        return sorted(left, key=lambda p: _worth_keeping(finding, p, source))[1:]
    if finding == "label_conflict":
        return left if len({fates.classes[p] for p in left}) > 1 else []
    if finding == "split_leak":
        sides = {p: _HELD_OUT_FIRST[source.images[p].official_split] for p in left}
        return [p for p in left if sides[p] > min(sides.values())]
    return left


def _worth_keeping(finding: str, position: int, source: Examined) -> tuple[int, ...]:
    """Return what orders images that show the same, the one to stay first: held out, then large, then as listed."""
    image, seen = source.images[position], source.inspected[position]
    # Of an original and its copies it is the original, wherever it lies.
    copied = (
        finding == "augmented_copy" and source.detection.bonds["parent"][position] != f"{image.label}/{stem_of(image)}"
    )
    return (copied, _HELD_OUT_FIRST[image.official_split], -seen.width * seen.height, position)


def _relabel(positions: Sequence[int], finding: str, detail: str, source: Examined, fates: Fates) -> None:
    """Give images the reference's label; put aside those for which it settles nothing."""
    disputed = [c for p in positions if (c := fates.classes[p]) is not None]
    for p in positions:
        settled = settled_class(source.matched[p], source.label_set, disputed)
        if settled is None:
            fates.put_aside([p], finding, f"{detail}; the reference does not settle it")
        elif settled != fates.classes[p]:
            fates.classes[p] = settled
            fates.relabelled[p] = finding


def _refusal(finding: str, cases: Sequence[Case], images: Sequence[SourceImage]) -> str:
    named = [images[case.positions[0]].image_id + f" ({case.detail})" for case in cases[:_NAMED]]
    more = f" and {len(cases) - _NAMED:,} more" if len(cases) > _NAMED else ""
    return (
        f"{KINDS[finding].title.lower()}: {', '.join(named)}{more}. That is refused by policies.{finding}=fail; "
        "dermaray audit shows all of it"
    )
