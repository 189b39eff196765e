"""The audit of a data set as one page for a person: what was found, what was done, and the images side by side."""

import base64
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dermaray.data.manifest import SPLITS, is_manifest
from dermaray.pages import render_page

CASES_SHOWN = 12
IMAGES_SHOWN = 6
_LEAKS_SHOWN = 5
_SIZES_SHOWN = 8

# What stands in the place of an image that there is no thumbnail of.
_PLACEHOLDERS = {"missing_image": "no file", "unreadable": "cannot be read"}
# Here one image alone has a label that is in doubt.
_DISPUTED = ("unknown_label", "reference_contradiction")
_FATES = {"kept": "kept", "quarantined": "put aside"}


@dataclass(frozen=True)
class _Picture:
    """One image of a case, as it is shown. `tone` numbers the labels of a case that has several."""

    image_id: str
    uri: str
    path: str
    label: str | None
    tone: int | None
    split: str | None
    crossing: bool
    fate: str | None
    jpeg: str | None


@dataclass(frozen=True)
class _Case:
    """Images that belong together, and what was found of them; `images` counts those that are not shown too."""

    pictures: list[_Picture]
    images: int
    detail: str | None


def render_audit(audit: dict[str, Any], thumbnails: dict[str, bytes]) -> str:
    """Return the page of an audit as HTML.

    The page stands alone: images and style are inside it, nothing is fetched, nothing runs. Of each finding it shows
    at most `CASES_SHOWN` cases, of each case at most `IMAGES_SHOWN` images.

    Args:
        audit: What `audit.json` holds. `usable` and `quarantined` are None where no policy was applied.
        thumbnails: JPEG bytes, about 160 pixels wide, by the uri of their image. `shown_uris` names those that the page
            has a place for; one that is not there becomes an empty box.
    """
    applied = audit["usable"] is not None
    found = [finding for finding in audit["findings"] if finding["cases"]]
    unfound, unsought = _not_found(audit)
    return render_page(
        "data/audit.html",
        {"number": _number, "count": _count},
        audit=audit,
        applied=applied,
        verdict=_verdict(audit, found),
        leaks=audit["gate"]["leaks"][:_LEAKS_SHOWN],
        found=[(finding, _done(finding), _cases(finding, audit["source"], thumbnails)) for finding in found],
        unfound=unfound,
        unsought=unsought,
        placeholders=_PLACEHOLDERS,
        disputed=_DISPUTED,
        split_names=SPLITS if _has_splits(audit) else (),
        largest=max((row["images"] for row in audit["classes"].values()), default=0),
        totals={key: _total(audit, key) for key in ("images", *SPLITS)},
        sizes=_sizes(audit["sizes"]),
        command=f"dermaray prepare {_as_argument(audit['source'])} --out DIR policies.near_duplicate=drop",
    )


def shown_uris(audit: dict[str, Any]) -> list[str]:
    """Return the uri of every image that `render_audit` has a place for, each once."""
    pictures = [
        image["uri"]
        for finding in audit["findings"]
        for case in _most_telling(finding["cases"])
        for image in _one_of_each_first(case["images"])
    ]
    return [uri for uri in dict.fromkeys(pictures) if uri]


def _verdict(audit: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """Return in plain sentences how many images can be used, and whether the splits can."""
    images, aside = audit["images"], audit["quarantined"]
    if aside is None:
        sentence = f"{_count(images, 'image')} {'was' if images == 1 else 'were'} looked at, and nothing was changed. "
        sentence += f"{len(found)} of {_count(len(audit['findings']), 'kind')} of finding came up."
    elif aside:
        verb = "was" if aside == 1 else "were"
        sentence = f"Of {_count(images, 'image')} {audit['usable']:,} can be used; {aside:,} {verb} put aside."
    else:
        sentence = f"All of the {_count(images, 'image')} can be used."
    relabelled = sum(finding["relabelled"] for finding in found)
    if relabelled:
        sentence += f" {relabelled:,} {'was' if relabelled == 1 else 'were'} given another label."
    if audit["gate"]["passes"] and not _has_splits(audit):
        return f"{sentence} The images are not split yet."
    if audit["gate"]["passes"]:
        return f"{sentence} No lesion, patient or duplicate is in two splits."
    leaks = len(audit["gate"]["leaks"])
    what = "lesion, patient or picture is" if leaks == 1 else "lesions, patients or pictures are"
    return f"{sentence} {leaks:,} {what} in two splits."


def _not_found(audit: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the titles of what was looked for in vain, and of what could not be looked for."""
    unfound: list[str] = []
    unsought: list[str] = []
    for finding in audit["findings"]:
        if not finding["cases"]:
            blind = finding["finding"] == "reference_contradiction" and not audit["reference_images"]
            (unsought if blind else unfound).append(finding["title"])
    return unfound, unsought


def _done(finding: dict[str, Any]) -> str:
    """Return in a few words what the policy did to the images of a finding."""
    counts = ((finding["quarantined"], "put aside"), (finding["relabelled"], "relabelled"))
    done = ", ".join(f"{count:,} {verb}" for count, verb in counts if count)
    if done or finding["policy"] != "keep":
        return done or "nothing"
    return "kept" if finding["images"] else "reported"


def _cases(finding: dict[str, Any], source: str, thumbnails: dict[str, bytes]) -> list[_Case]:
    return [
        _Case(_pictures(case["images"], source, thumbnails), len(case["images"]), case["detail"])
        for case in _most_telling(finding["cases"])
    ]


def _most_telling(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most `CASES_SHOWN`: several images before one, then labels that differ, then splits that differ.

    Among equals the labels take turns, because the first cases of a source are often all of its first class.
    """
    ranks = []
    turns: Counter[frozenset[str]] = Counter()
    for position, case in enumerate(cases):
        labels, splits = _values(case["images"], "label"), _values(case["images"], "split")
        telling = (len(case["images"]) > 1, len(labels) > 1, len(splits) > 1)
        turn = turns[frozenset(labels)]
        turns[frozenset(labels)] += 1
        ranks.append((tuple(not yes for yes in telling), turn, position))
    return [cases[position] for *_, position in sorted(ranks)[:CASES_SHOWN]]


def _one_of_each_first(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most `IMAGES_SHOWN`, in their order, such that no label, split or fate is lost if there is room."""
    seen: set[tuple[str, str | None]] = set()
    news = []
    for position, image in enumerate(images):
        facts = {(key, image[key]) for key in ("label", "split", "fate")}
        news.append((-len(facts - seen), position))
        seen |= facts
    return [images[position] for position in sorted(position for _, position in sorted(news)[:IMAGES_SHOWN])]


def _pictures(images: Sequence[dict[str, Any]], source: str, thumbnails: dict[str, bytes]) -> list[_Picture]:
    labels, crossing = _values(images, "label"), len(_values(images, "split")) > 1
    tones = {label: tone for tone, label in enumerate(labels)} if len(labels) > 1 else {}
    return [
        _Picture(
            image_id=image["image_id"],
            uri=image["uri"] or "",
            path=_whereabouts(image["uri"] or "", source, image["image_id"]),
            label=image["label"],
            tone=tones.get(image["label"]),
            split=image["split"],
            crossing=crossing,
            fate=_FATES.get(image["fate"], image["fate"]),
            jpeg=base64.b64encode(thumbnails[image["uri"]]).decode("ascii") if image["uri"] in thumbnails else None,
        )
        for image in _one_of_each_first(images)
    ]


def _values(images: Sequence[dict[str, Any]], key: str) -> list[str]:
    """Return what images differ in, each value once, in the order met; None is no value."""
    return list(dict.fromkeys(image[key] for image in images if image[key] is not None))


def _whereabouts(uri: str, source: str, image_id: str) -> str:
    """Return where an image lies, as seen from the source if inside it, without what its id tells already."""
    inside = re.fullmatch(re.escape(source.rstrip("/\\")) + r"(?:[/\\]|::)(.+)", uri, re.DOTALL)
    path = inside[1] if inside else uri
    *folders, name = re.split(r"[/\\]|::", path)
    if path == image_id:
        return ""
    if len(folders) > (3 if inside else 1):
        folders = ["…", *folders[-1:]]
    parts = folders if name.rpartition(".")[0] == image_id else [*folders, name]
    return "/".join(part if len(part) <= 48 else f"{part[:23]}…{part[-24:]}" for part in parts)


def _as_argument(source: str) -> str:
    # What was audited may be a manifest, and only the source that it was made of can be prepared again.
    return "SOURCE" if is_manifest(source) else shlex.quote(source)


def _sizes(sizes: dict[str, int]) -> dict[str, Any]:
    """Return the most frequent sizes, and how many further ones there are of how many images."""
    ranked = sorted(sizes.items(), key=lambda item: -item[1])
    rest = ranked[_SIZES_SHOWN:]
    return {"most": ranked[:_SIZES_SHOWN], "further": len(rest), "further_images": sum(count for _, count in rest)}


def _has_splits(audit: dict[str, Any]) -> bool:
    return any(_total(audit, split) for split in SPLITS)


def _total(audit: dict[str, Any], key: str) -> int:
    return sum(row[key] or 0 for row in audit["classes"].values())


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _count(value: int, noun: str) -> str:
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"
