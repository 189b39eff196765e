"""What an audit can find wrong with a data set, and what may be done about it.

The order is that in which policies are applied: an image that one finding puts aside is out of reach of the next, so
that each image leaves for one reason. All findings are looked for in all images, whatever the policies are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dermaray.yaml_config import Section

Policy = Literal["drop", "keep", "relabel", "fail"]


@dataclass(frozen=True)
class Kind:
    """One kind of finding, for a person.

    Attributes:
        title: A few words.
        meaning: What it is and why it matters, in a sentence or two.
    """

    title: str
    meaning: str


@dataclass(frozen=True)
class Case:
    """One instance of a finding.

    Attributes:
        positions: The images that it concerns, as positions in the source; none for a finding about a class.
        detail: What was seen.
    """

    positions: tuple[int, ...]
    detail: str


Findings = dict[str, Sequence[Case]]
"""The cases of every kind, by its name in `KINDS`."""

KINDS: dict[str, Kind] = {
    "missing_image": Kind("Listed, but not there", "A row of the source's table names an image, and there is no file."),
    "unlabelled": Kind(
        "Without a label", "The source gives no diagnosis for the image, so nothing can be learnt of it."
    ),
    "unknown_label": Kind("With an unknown label", "The label set knows no class for the source's diagnosis."),
    "unreadable": Kind(
        "Cannot be read", "The file is empty, cut short, damaged, too large, or something else than an image."
    ),
    "wrong_type": Kind(
        "Of another type than the name says",
        "The content is a sound image of another format than the suffix promises. dermaray goes by the content; other "
        "programs may not.",
    ),
    "unlike_dermoscopy": Kind(
        "Unlike dermoscopy",
        "Size or colour is unlike that of a dermoscopic image: tiny, a strip, blank, grey, or coloured like no skin.",
    ),
    "label_conflict": Kind(
        "One picture under two diagnoses",
        "The same picture, byte for byte or nearly, is filed under different labels. At most one of them is right.",
    ),
    "reference_contradiction": Kind(
        "Contradicted by the reference", "The reference ground truth gives the image another diagnosis."
    ),
    "augmented_copy": Kind(
        "Augmented copies",
        "Files that an augmentation program made of one image. Split after such copies were written, validation images "
        "have siblings in training, and the accuracy is an illusion. dermaray augments while it trains instead.",
    ),
    "exact_duplicate": Kind("The same file more than once", "Files with the same bytes (SHA-256) and the same label."),
    "near_duplicate": Kind(
        "The same picture, saved differently",
        "One photograph encoded anew, resized, turned by a multiple of 90 degrees or mirrored.",
    ),
    "split_leak": Kind(
        "On both sides of the source's own split",
        "Images of one lesion, one patient, one picture or one augmentation parent are in two of the source's splits: "
        "what is measured on one side was learnt on the other.",
    ),
    "small_class": Kind(
        "Classes too small", "There are too few independent lesions of a class to learn it, or to measure how well."
    ),
}


class Policies(Section):
    """What to do about each finding.

    `drop` puts images aside, into `quarantine.csv`; of duplicates and copies one stays. `keep` leaves them. `relabel`
    takes the reference's label where it settles the matter, and drops where it does not. `fail` stops.

    Attributes:
        missing_image: Rows without a file cannot be kept.
        unlabelled: Images without a label cannot be kept.
        unknown_label: Stops by default: a class left out by accident would not be noticed.
        unreadable: Files that cannot be decoded cannot be kept.
        wrong_type: Kept: the decoder goes by the content.
        unlike_dermoscopy: Kept: the rule is coarse. Look at them.
        label_conflict: All images of the picture, for nobody can tell which label is right.
        reference_contradiction: Only where a reference is given.
        augmented_copy: The parent stays, or the first copy where there is no parent.
        exact_duplicate: One stays, that of the test split before others.
        near_duplicate: Kept, and never parted by a split.
        split_leak: The training side goes, so that what is held out stays whole.
        small_class: Reported.
    """

    missing_image: Literal["drop", "fail"] = "drop"
    unlabelled: Literal["drop", "fail"] = "drop"
    unknown_label: Literal["drop", "fail"] = "fail"
    unreadable: Literal["drop", "fail"] = "drop"
    wrong_type: Literal["drop", "keep", "fail"] = "keep"
    unlike_dermoscopy: Literal["drop", "keep", "fail"] = "keep"
    label_conflict: Literal["drop", "keep", "relabel", "fail"] = "drop"
    reference_contradiction: Literal["drop", "keep", "relabel", "fail"] = "drop"
    augmented_copy: Literal["drop", "keep", "fail"] = "drop"
    exact_duplicate: Literal["drop", "keep", "fail"] = "drop"
    near_duplicate: Literal["drop", "keep", "fail"] = "keep"
    split_leak: Literal["drop", "keep", "fail"] = "drop"
    small_class: Literal["keep", "fail"] = "keep"

    def of(self, finding: str) -> Policy:
        """Return the policy of one finding."""
        policy: Policy = getattr(self, finding)
        return policy
