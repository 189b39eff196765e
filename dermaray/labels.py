"""Label sets of the ISIC world: their classes, the spellings they are found under, which of them are malignant.

A diagnosis has one short code here (`MEL`, `NV`, ...). Every spelling found in the wild maps to a code by `ALIASES`,
and a label set says under which of its classes it files each code. So a folder called `pigmented benign keratosis` is
`BKL` in `isic2019` and its own class in `kaggle9`, by tables that a reader can check. Their sources: the diagnoses of
the ISIC archive's metadata; the task descriptions of the ISIC challenges of 2016 to 2020; for what HAM10000's classes
hold, Tschandl et al., Scientific Data 5:180161, 2018.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dermaray.errors import LabelError

MALIGNANT_CODES = frozenset({"MEL", "BCC", "SCC", "SCCIS", "MALIGNANT"})

ALIASES: dict[str, tuple[str, ...]] = {
    "MEL": (
        *("mel", "melanoma", "malignant melanoma", "melanoma nos", "malignant melanocytic proliferations melanoma"),
        *("melanoma in situ", "melanoma invasive", "invasive melanoma", "melanoma metastasis", "metastatic melanoma"),
        *("nodular melanoma", "superficial spreading melanoma", "acral lentiginous melanoma"),
        *("lentigo maligna", "lentigo maligna melanoma"),
    ),
    # Melanocytic ones only: an epidermal nevus or a nevus sebaceus is another thing.
    "NV": (
        *("nv", "nevus", "naevus", "nevi", "melanocytic nevus", "melanocytic nevi", "benign nevus", "common nevus"),
        *("atypical nevus", "dysplastic nevus", "clark nevus", "blue nevus", "spitz nevus", "reed nevus"),
        *("congenital nevus", "acral nevus", "halo nevus", "combined nevus", "recurrent nevus", "nevus spilus"),
        *("junctional nevus", "compound nevus", "dermal nevus", "intradermal nevus"),
    ),
    "BCC": ("bcc", "basal cell carcinoma"),
    "AK": ("ak", "actinic keratosis", "solar keratosis", "solar or actinic keratosis"),
    "AKIEC": ("akiec", "actinic keratosis intraepithelial carcinoma"),
    "BKL": ("bkl", "benign keratosis", "benign keratosis like lesion"),
    "PBK": ("pbk", "pigmented benign keratosis"),
    "SK": ("sk", "seborrheic keratosis"),
    "SL": ("sl", "solar lentigo"),
    "LPLK": ("lplk", "lichenoid keratosis", "lichen planus like keratosis", "benign lichenoid keratosis"),
    "LNOS": ("lentigo nos", "lentigo"),
    "LS": ("lentigo simplex",),
    "DF": ("df", "dermatofibroma"),
    # Angiomas, angiokeratomas and pyogenic granulomas are what HAM10000's description counts under it.
    "VASC": (
        *("vasc", "vascular lesion", "vascular", "benign soft tissue proliferations vascular"),
        *("angioma", "cherry angioma", "hemangioma", "haemangioma", "angiokeratoma", "pyogenic granuloma"),
    ),
    "SCC": ("scc", "squamous cell carcinoma", "squamous cell carcinoma nos", "squamous cell carcinoma invasive"),
    "SCCIS": (
        *("squamous cell carcinoma in situ", "squamous cell carcinoma in situ bowens disease"),
        *("intraepithelial carcinoma", "bowen s disease", "bowens disease", "bowen disease"),
    ),
    "CALM": ("cafe au lait macule", "café au lait macule", "cafe au lait macule or patch"),
    # Of uncertain potential by name, indeterminate to the ISIC archive: no class may claim it.
    "AMP": (
        *("atypical melanocytic proliferation", "atypical melanocytic neoplasm"),
        *("aimp", "atypical intraepithelial melanocytic proliferation"),
    ),
    "BENIGN": ("benign",),
    "MALIGNANT": ("malignant",),
    "INDETERMINATE": ("indeterminate",),
}

MEANINGS: dict[str, str] = {
    "MEL": "melanoma",
    "NV": "nevus",
    "BCC": "basal cell carcinoma",
    "AK": "actinic keratosis",
    "AKIEC": "actinic keratosis or Bowen's disease",
    "BKL": "benign keratosis",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
    "SCC": "squamous cell carcinoma",
}
"""What the classes that are called by a code are, for people to read."""

_KERATOSES = frozenset({"SK", "SL", "LPLK"})

_DIAGNOSES: dict[str, frozenset[str]] = {
    # Intraepithelial carcinoma is squamous cell carcinoma in situ: of HAM10000's `akiec`, ISIC 2019 files 130 images
    # under AK and 197 under SCC.
    "AKIEC": frozenset({"AK", "SCCIS"}),
    "SCC": frozenset({"SCC", "SCCIS"}),
    # The archive's name for the images that are `bkl` in HAM10000.
    "PBK": _KERATOSES,
    "BKL": _KERATOSES,
    "LNOS": frozenset({"SL", "LS"}),
    "BENIGN": _KERATOSES | {"NV", "LS", "DF", "VASC", "CALM"},
    "MALIGNANT": frozenset({"MEL", "BCC", "SCC", "SCCIS"}),
    "AMP": frozenset(),
    "INDETERMINATE": frozenset(),
}
"""The diagnoses that a code can stand for, where it is not just its own."""

_POSSIBLY: dict[str, frozenset[str]] = {
    # Premalignant; sources have filed it under either.
    "BENIGN": frozenset({"AK"}),
    "MALIGNANT": frozenset({"AK"}),
    # A lentigo simplex has been filed with the nevi and with the other lentigines.
    "NV": frozenset({"LS"}),
    "PBK": frozenset({"LS"}),
    "BKL": frozenset({"LS"}),
}
"""What a code may have been used for besides: enough to doubt a contradiction, not enough to deny it."""

GRADES = frozenset({"BENIGN", "MALIGNANT", "INDETERMINATE"})
"""Codes that say how bad a lesion is, and not what."""

RESERVED_NAMES = frozenset(
    {"image_id", "uri", "status", "reason", "message", "sha256", "width", "height"}
    | {"label", "melanoma_probability", "alert", "refer", "prediction_set", "ood_score"}
    | {"model", "model_version", "model_digest", "scored_at"}
)
"""Names that no class may have: each class becomes a column beside these."""

_CODE_OF_ALIAS = {alias: code for code, aliases in ALIASES.items() for alias in aliases}


def normalise(label: str) -> str:
    """Return a label as `ALIASES` spells it: lower case, single spaces, no punctuation."""
    return " ".join("".join(c if c.isalnum() else " " for c in label.lower()).split())


def diagnosis_code(label: str) -> str | None:
    """Return the code of a spelling (`"Basal_Cell carcinoma"` -> `"BCC"`), or None where no spelling matches."""
    return _CODE_OF_ALIAS.get(normalise(label))


def agree(label: str, reference: str) -> bool | None:
    """Tell whether two labels of one image can both be right.

    Args:
        label: A label in any spelling, of any label set.
        reference: The label that another source gives.

    Returns:
        True where some diagnosis falls under both (`seborrheic keratosis` and `BKL`, `malignant` and `BCC`); False
        where none does (`melanoma` and `BKL`); None where that cannot be told, because a label is unknown, means
        no diagnosis (`indeterminate`), or is known to be used in more than one way.
    """
    if normalise(label) == normalise(reference):
        return True
    one, other = diagnosis_code(label), diagnosis_code(reference)
    if one is None or other is None:
        return None
    meant, meant_too = (_DIAGNOSES.get(code, frozenset({code})) for code in (one, other))
    if one == other or meant & meant_too:
        return True
    if not meant or not meant_too:
        return None
    doubtful = meant & _POSSIBLY.get(other, frozenset()) or meant_too & _POSSIBLY.get(one, frozenset())
    return None if doubtful else False


@dataclass(frozen=True)
class LabelSet:
    """The classes of a model, in the order of its outputs.

    Attributes:
        name: A key of `LABEL_SETS`, or `custom`.
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

    def find(self, label: str) -> str | None:
        """Return the class that files a label found in a source, under any of its spellings, or None."""
        for name in self.classes:
            if normalise(name) == normalise(label):
                return name
        return self.class_of_code.get(diagnosis_code(label) or "")

    def resolve(self, label: str) -> str:
        """Return what `find` finds.

        Raises:
            LabelError: No class of this set files the label.
        """
        resolved = self.find(label)
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
    # `AKIEC` files a carcinoma in situ, too, but is premalignant for the greater part.
    malignant = frozenset(cls for cls, codes in classes.items() if set(codes) <= MALIGNANT_CODES)
    return LabelSet(name, tuple(classes), malignant, class_of_code.get("MEL"), class_of_code)


_BENIGN_CODES = ("BENIGN", "NV", "BKL", "PBK", "SK", "SL", "LPLK", "LNOS", "LS", "DF", "VASC", "CALM")

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
                "squamous cell carcinoma": ("SCC", "SCCIS"),
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
                "AKIEC": ("AKIEC", "AK", "SCCIS"),
                "BKL": ("BKL", "PBK", "SK", "SL", "LPLK", "LNOS"),
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
                "BKL": ("BKL", "PBK", "SK", "SL", "LPLK", "LNOS"),
                "DF": ("DF",),
                "VASC": ("VASC",),
                "SCC": ("SCC", "SCCIS"),
            },
        ),
        # "Malignant (melanoma) or non-malignant", says that challenge; a carcinoma has no place in it.
        _label_set("isic2016", {"benign": _BENIGN_CODES, "malignant": ("MALIGNANT", "MEL")}),
        _label_set("isic2017", {"melanoma": ("MEL",), "seborrheic keratosis": ("SK",), "nevus": ("NV",)}),
        # Every image that this challenge calls malignant is a melanoma by its `diagnosis`.
        _label_set("isic2020", {"benign": _BENIGN_CODES, "melanoma": ("MEL", "MALIGNANT")}),
    )
}


def find_label_set(labels: Iterable[str], name: str | None = None) -> LabelSet:
    """Choose the label set of a source.

    Args:
        labels: The labels found in the source.
        name: A key of `LABEL_SETS`, or None: then the set whose classes are found word for word under most of the
            labels and that knows them all; of equals, the one whose classes are all found, else the earlier. A set
            with a class `benign` is chosen so only where all labels are its own classes, word for word: it would merge
            diagnoses that the source tells apart. Where no set is chosen, the labels become a set named `custom`.

    Raises:
        LabelError: `name` is no label set, the named set does not know one of the labels, or two labels of a custom set
            differ in nothing but marks.
    """
    found = sorted(set(labels))
    if name is not None:
        if name not in LABEL_SETS:
            raise LabelError(f"label set {name!r} is unknown. Known: {', '.join(LABEL_SETS)}")
        for label in found:
            LABEL_SETS[name].resolve(label)
        return LABEL_SETS[name]
    fitting = [s for s in LABEL_SETS.values() if _fits(s, found)]
    if fitting:
        spelled = {normalise(label) for label in found}
        return max(fitting, key=lambda s: (len(spelled & _words(s)), _words(s) <= spelled))
    if reserved := sorted(RESERVED_NAMES & set(found)):
        raise LabelError(f"a class cannot be called {reserved[0]!r}: scores have a column of that name. Rename it")
    if barred := [label for label in found if "|" in label]:
        raise LabelError(
            f"a class cannot have | in its name: it stands between classes in a CSV. Received: {barred[0]!r}"
        )
    # `Nevus` and `nevus` are one class, named by the first.
    named = {normalise(label): label for label in reversed(found)}
    for label in found:
        first = named[normalise(label)]
        if _plain(label) != _plain(first):
            raise LabelError(f"{first!r} and {label!r} would be one class: marks tell no classes apart. Rename one")
    classes = sorted(named.values())
    codes = {label: diagnosis_code(label) for label in classes}
    melanomas = [label for label, code in codes.items() if code == "MEL"]
    return LabelSet(
        "custom",
        tuple(classes),
        frozenset(label for label, code in codes.items() if code in MALIGNANT_CODES),
        # Of `melanoma in situ` and `melanoma invasive`, neither is melanoma.
        melanomas[0] if len(melanomas) == 1 else None,
    )


def _plain(label: str) -> str:
    """Return a label without capitals and what stands between words, but with marks that may mean something."""
    return " ".join(re.sub(r"[\s_/,.;:()\[\]]|(?<=\w)-(?=\w)", " ", label.casefold()).split())


def _words(label_set: LabelSet) -> set[str]:
    return {normalise(c) for c in label_set.classes}


def _fits(label_set: LabelSet, labels: list[str]) -> bool:
    if "benign" in label_set.classes:
        return bool(labels) and {normalise(label) for label in labels} <= _words(label_set)
    return all(label_set.find(label) is not None for label in labels)
