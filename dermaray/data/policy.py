"""What becomes of each image: policies applied to findings, one after the other, so that each leaves for one reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dermaray.data.examine import Examined
from dermaray.data.findings import KINDS, Case, Policies
from dermaray.data.reference import contradicts, settled_class
from dermaray.errors import DataError

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
        policy = policies.of(finding)
        if policy == "keep":
            continue
        for case in source.detection.findings.get(finding, ()):
            concerned = _concerned(finding, [p for p in case.positions if fates.finding[p] is None], source, fates)
            if concerned and policy == "fail":
                raise DataError(_refusal(finding, source))
            if policy == "relabel":
                _relabel(concerned, finding, case, source, fates)
            else:
                fates.put_aside(concerned, finding, case.detail)
    return fates


def _concerned(finding: str, left: list[int], source: Examined, fates: Fates) -> list[int]:
    """Return which images a policy acts on, of those of a case that are left: what went before may have settled it."""
    classes = fates.classes
    if finding == "label_conflict":
        # Whoever else of the picture has left for another reason: the label of the others is as doubtful as before.
        return left
    if finding == "reference_contradiction":
        return [p for p in left if contradicts(classes[p], source.matched[p])]
    if finding == "augmented_copy":
        # Of a parent that is not there the first copy stands for it.
        copies = [p for p in left if source.detection.pictures.copies[p]]
        return copies if len(copies) < len(left) else _all_but_one(copies, source)
    if finding in ("exact_duplicate", "near_duplicate"):
        # A conflict of labels was settled before, or is to be kept.
        return [
            p for c in {classes[p] for p in left} for p in _all_but_one([q for q in left if classes[q] == c], source)
        ]
    if finding == "split_leak":
        sides = {p: _HELD_OUT_FIRST[source.images[p].official_split] for p in left}
        return [p for p in left if sides[p] > min(sides.values())]
    return left


def _all_but_one(positions: Sequence[int], source: Examined) -> list[int]:
    """Return images that show the same without the one to stay: held out, then large, then as listed."""

    def worth(p: int) -> tuple[int, ...]:
        seen = source.inspected[p]
        return (_HELD_OUT_FIRST[source.images[p].official_split], -seen.width * seen.height, p)

    return sorted(positions, key=worth)[1:]


def _relabel(positions: list[int], finding: str, case: Case, source: Examined, fates: Fates) -> None:
    """Give those left of a case, all of one picture, the reference's label; put them aside if it settles nothing."""
    of = case.positions if finding == "label_conflict" else ()
    disputed = [c for p in of if (c := fates.classes[p]) is not None]
    settled = {settled_class(source.matched[p], source.label_set, disputed) for p in positions}
    label = settled.pop() if len(settled) == 1 else None
    if label is None:
        fates.put_aside(positions, finding, f"{case.detail}; the reference does not settle it")
        return
    for p in positions:
        if fates.classes[p] != label:
            fates.classes[p] = label
            fates.relabelled[p] = finding


def _refusal(finding: str, source: Examined) -> str:
    cases = source.detection.findings[finding]
    named = [source.images[case.positions[0]].image_id + f" ({case.detail})" for case in cases[:_NAMED]]
    more = f" and {len(cases) - _NAMED:,} more" if len(cases) > _NAMED else ""
    return (
        f"{KINDS[finding].title.lower()}: {', '.join(named)}{more}. That is refused by policies.{finding}=fail; "
        "dermaray audit shows all of it"
    )
