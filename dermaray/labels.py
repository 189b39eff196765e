"""Label sets of the ISIC world: their classes, the spellings they are found under, which of them are malignant.

A diagnosis has one short code here (`MEL`, `NV`, ...). Every spelling found in the wild maps to a code by `ALIASES`,
and a label set says under which of its classes it files each code. So a folder called `pigmented benign keratosis` is
`BKL` in `isic2019` and its own class in `kaggle9`, by tables that a reader can check.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from dermaray.errors import LabelError

MALIGNANT_CODES = frozenset({"MEL", "BCC", "SCC"})

ALIASES: dict[str, tuple[str, ...]] = {
    "MEL": ("mel", "melanoma"),
    "NV": ("nv", "nevus", "naevus", "melanocytic nevus", "melanocytic nevi"),
    "BCC": ("bcc", "basal cell carcinoma"),
    "AK": ("ak", "actinic keratosis", "solar keratosis"),
    "AKIEC": ("akiec", "actinic keratosis intraepithelial carcinoma"),
    "BKL": ("bkl", "benign keratosis", "benign keratosis like lesion"),
    "PBK": ("pbk", "pigmented benign keratosis"),
    "SK": ("sk", "seborrheic keratosis"),
    "DF": ("df", "dermatofibroma"),
    "VASC": ("vasc", "vascular lesion", "vascular"),
    "SCC": ("scc", "squamous cell carcinoma"),
}

RESERVED_NAMES = frozenset(
    {"image_id", "uri", "status", "reason", "message", "width", "height"}
    | {"label", "melanoma_probability", "model", "model_digest"}
)
"""Names that no class may have: each class becomes a column beside these."""

_CODE_OF_ALIAS = {alias: code for code, aliases in ALIASES.items() for alias in aliases}


def normalise(label: str) -> str:
    """Return a label as `ALIASES` spells it: lower case, single spaces, no punctuation."""
    return " ".join("".join(c if c.isalnum() else " " for c in label.lower()).split())


def diagnosis_code(label: str) -> str | None:
    """Return the code of a spelling (`"Basal_Cell carcinoma"` -> `"BCC"`), or None where no spelling matches."""
    return _CODE_OF_ALIAS.get(normalise(label))


@dataclass(frozen=True)
class LabelSet:
    """The classes of a model, in the order of its outputs.

    Attributes:
        name: `kaggle9`, `isic2018`, `isic2019` or `custom`.
        classes: Class names, in the order of the model's outputs.
        malignant: Those of `classes` that are malignant.
        melanoma: The class that is melanoma, or None where the set has none.
    """

    name: str
    classes: tuple[str, ...]
    malignant: frozenset[str] = frozenset()
    melanoma: str | None = None
    class_of_code: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def index(self, label: str) -> int:
        """Return the position of a class name.

        Raises:
            LabelError: `label` is not a class of this set.
        """
        try:
            return self.classes.index(label)
        except ValueError:
            raise LabelError(f"{label!r} is no class of {self.name}. Its classes: {', '.join(self.classes)}") from None

    @property
    def melanoma_index(self) -> int | None:
        """The position of the melanoma class, or None where the set has none."""
        return None if self.melanoma is None else self.classes.index(self.melanoma)

    def resolve(self, label: str) -> str:
        """Return the class that files a label found in a source, under any of its spellings.

        Raises:
            LabelError: No class of this set files the label.
        """
        for name in self.classes:
            if normalise(name) == normalise(label):
                return name
        resolved = self.class_of_code.get(diagnosis_code(label) or "")
        if resolved is None:
            raise LabelError(f"label {label!r} is unknown to {self.name}. It knows: {', '.join(self.classes)}")
        return resolved

    def to_dict(self) -> dict[str, object]:
        """Return the set as plain JSON values; `from_dict` reads it back."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "malignant": sorted(self.malignant),
            "melanoma": self.melanoma,
        }

    @classmethod
    def from_dict(cls, value: dict[str, object]) -> "LabelSet":
        """Read what `to_dict` wrote.

        Raises:
            LabelError: A key is missing, or a malignant class is none of the classes.
        """
        try:
            classes = tuple(str(c) for c in value["classes"])  # type: ignore[attr-defined]
            malignant = frozenset(str(c) for c in value["malignant"])  # type: ignore[attr-defined]
            melanoma = value["melanoma"]
            name = str(value["name"])
        except (KeyError, TypeError) as error:
            raise LabelError(f"a label set needs name, classes, malignant and melanoma. Received: {value!r}") from error
        known = LABEL_SETS.get(name)
        if known is not None and known.classes == classes:
            return known
        named = malignant | ({str(melanoma)} if melanoma is not None else set())
        if not named <= set(classes):
            raise LabelError(f"malignant and melanoma must name classes. Received: {sorted(named - set(classes))}")
        return cls(name, classes, malignant, None if melanoma is None else str(melanoma))


def _label_set(name: str, classes: dict[str, tuple[str, ...]]) -> LabelSet:
    """Build a set from {class name: the codes that it files}."""
    class_of_code = {code: cls for cls, codes in classes.items() for code in codes}
    malignant = frozenset(cls for cls, codes in classes.items() if MALIGNANT_CODES & set(codes))
    return LabelSet(name, tuple(classes), malignant, class_of_code.get("MEL"), class_of_code)


LABEL_SETS: dict[str, LabelSet] = {
    s.name: s
    for s in (
        _label_set(
            "kaggle9",
            {
                "actinic keratosis": ("AK",),
                "basal cell carcinoma": ("BCC",),
                "dermatofibroma": ("DF",),
                "melanoma": ("MEL",),
                "nevus": ("NV",),
                "pigmented benign keratosis": ("PBK",),
                "seborrheic keratosis": ("SK",),
                "squamous cell carcinoma": ("SCC",),
                "vascular lesion": ("VASC",),
            },
        ),
        # HAM10000's classes in the order of the ISIC 2018 challenge; squamous cell carcinoma is not among them.
        _label_set(
            "isic2018",
            {
                "MEL": ("MEL",),
                "NV": ("NV",),
                "BCC": ("BCC",),
                "AKIEC": ("AKIEC", "AK"),
                "BKL": ("BKL", "PBK", "SK"),
                "DF": ("DF",),
                "VASC": ("VASC",),
            },
        ),
        _label_set(
            "isic2019",
            {
                "MEL": ("MEL",),
                "NV": ("NV",),
                "BCC": ("BCC",),
                "AK": ("AK", "AKIEC"),
                "BKL": ("BKL", "PBK", "SK"),
                "DF": ("DF",),
                "VASC": ("VASC",),
                "SCC": ("SCC",),
            },
        ),
    )
}


def find_label_set(labels: Iterable[str], name: str | None = None) -> LabelSet:
    """Choose the label set of a source.

    Args:
        labels: The labels found in the source.
        name: A key of `LABEL_SETS`, or None: then the set whose classes are found word for word under most of the
            labels and that knows them all; where none knows them all, the labels become a set named `custom`.

    Raises:
        LabelError: `name` is no label set, or the named set does not know one of the labels.
    """
    found = sorted(set(labels))
    if name is not None:
        if name not in LABEL_SETS:
            raise LabelError(f"label set {name!r} is unknown. Known: {', '.join(LABEL_SETS)}")
        for label in found:
            LABEL_SETS[name].resolve(label)
        return LABEL_SETS[name]
    fitting = [s for s in LABEL_SETS.values() if _knows(s, found)]
    if fitting:
        spelled = {normalise(label) for label in found}
        return max(fitting, key=lambda s: len(spelled & {normalise(c) for c in s.classes}))
    if reserved := sorted(RESERVED_NAMES & set(found)):
        raise LabelError(f"a class cannot be called {reserved[0]!r}: scores have a column of that name. Rename it")
    codes = {label: diagnosis_code(label) for label in found}
    return LabelSet(
        "custom",
        tuple(found),
        frozenset(label for label, code in codes.items() if code in MALIGNANT_CODES),
        next((label for label, code in codes.items() if code == "MEL"), None),
    )


def _knows(label_set: LabelSet, labels: list[str]) -> bool:
    try:
        for label in labels:
            label_set.resolve(label)
    except LabelError:
        return False
    return True
