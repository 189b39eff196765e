import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from dermaray.data.audit_page import CASES_SHOWN, IMAGES_SHOWN, render_audit, shown_uris
from dermaray.data.findings import KINDS, Policies
from dermaray.data.synthetic import render_lesion

POLICIES = Policies()


class Page(HTMLParser):
    """The tags, attributes, classes and words of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())
        self.classes = {name for key, value in self.attributes if key == "class" for name in value.split()}

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)

    def values(self, attribute):
        return [value for name, value in self.attributes if name == attribute]


def image(name, label="nevus", split="train", fate="kept", uri=None):
    uri = uri or f"/data/set/{name}.jpg"
    return {"image_id": name, "uri": uri, "label": label, "split": split, "fate": fate}


def case(*images, detail="same SHA-256 3fa9"):
    return {"images": list(images), "detail": detail}


def an_audit(cases=None, done=None, **facts):
    """Return what `audit.json` holds, with the given cases and (put aside, relabelled) by the name of a finding."""
    findings = []
    for name, kind in KINDS.items():
        found = (cases or {}).get(name, [])
        aside, relabelled = (done or {}).get(name, (0, 0))
        findings.append(
            {
                "finding": name,
                "title": kind.title,
                "meaning": kind.meaning,
                "policy": POLICIES.of(name),
                "images": len({i["uri"] for c in found for i in c["images"]}),
                "quarantined": aside,
                "relabelled": relabelled,
                "cases": found,
            }
        )
    return {
        "source": "/data/set",
        "reference": ["/data/reference"],
        "reference_images": 2014,
        "label_set": "kaggle9",
        "images": 2359,
        "usable": 1963,
        "quarantined": 396,
        "gate": {"passes": True, "leaks": []},
        "findings": findings,
        "classes": {
            "melanoma": {"images": 438, "groups": 420, "train": 300, "val": 70, "test": 68},
            "nevus": {"images": 1525, "groups": 1200, "train": 1000, "val": 225, "test": 300},
        },
        "sizes": {"180x180": 2359},
        **facts,
    }


def without_splits():
    return {"melanoma": {"images": 8, "groups": 6, "train": None, "val": None, "test": 0}}


def a_jpeg(seed):
    stream = io.BytesIO()
    Image.fromarray(render_lesion("nevus", seed, size=(32, 32))).save(stream, "JPEG")
    return stream.getvalue()


def section(html, finding):
    return Page(re.search(rf'<section id="{finding}">.*?</section>', html, re.DOTALL)[0])


LEAKING = {"passes": False, "leaks": [f"lesion L{i}: A{i} in train, B{i} in test" for i in range(12)]}
UNAPPLIED = {"usable": None, "quarantined": None}


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (
            {},
            "Of 2,359 images 1,963 can be used; 396 were put aside. No lesion, patient or duplicate is in two splits.",
        ),
        ({"usable": 2358, "quarantined": 1}, "Of 2,359 images 2,358 can be used; 1 was put aside. No lesion"),
        ({"usable": 2359, "quarantined": 0}, "All of the 2,359 images can be used. No lesion"),
        ({"classes": without_splits()}, "396 were put aside. The images are not split yet."),
        (
            UNAPPLIED,
            "2,359 images were looked at, and nothing was changed. 0 of 13 kinds of finding came up. No lesion",
        ),
        ({"gate": LEAKING}, "396 were put aside. 12 lesions, patients or pictures are in two splits."),
        (
            {"gate": {"passes": False, "leaks": LEAKING["leaks"][:1]}},
            "396 were put aside. 1 lesion, patient or picture is in two splits.",
        ),
    ],
    ids=["applied", "one-aside", "all-usable", "unsplit", "unapplied", "leaking", "one-leak"],
)
def test_the_verdict_is_a_plain_sentence(facts, verdict):
    shown = re.search(r'class="verdict[^>]*>([^<]*)<', render_audit(an_audit(**facts), {}))[1]
    assert shown.startswith(verdict) if verdict.endswith("lesion") else shown.endswith(verdict)


def test_a_leak_is_a_warning_that_names_the_first_crossings():
    page = Page(render_audit(an_audit(gate=LEAKING), {}))
    assert "Do not measure a model on these splits" in page.text
    assert "lesion L4: A4 in train, B4 in test 5 of 12 shown, all in audit.json" in page.text
    assert "L5" not in page.text
    assert "leaking" in page.classes
    sound = Page(render_audit(an_audit(), {}))
    assert "Do not measure" not in sound.text
    assert "leaking" not in sound.classes


def test_a_finding_has_its_line_in_the_table_and_its_section():
    cases = {"exact_duplicate": [case(image("A"), image("B", fate="quarantined"))]}
    html = render_audit(an_audit(cases, {"exact_duplicate": (1, 0)}), {})
    kind = KINDS["exact_duplicate"]
    text = Page(html).text
    assert f"{kind.title} 1 2 drop 1 put aside" in text
    assert f"{kind.title} policy drop {kind.meaning} 1 case, 2 images: 1 put aside." in text
    assert "nevus A train · kept" in text
    assert "nevus B train · put aside same SHA-256 3fa9" in text
    assert "#exact_duplicate" in Page(html).values("href")


def test_what_was_not_found_is_one_line_without_a_section():
    html = render_audit(an_audit({"unreadable": [case(image("A"))]}), {})
    others = "; ".join(kind.title for name, kind in KINDS.items() if name != "unreadable")
    assert f"Looked for and not found: {others}." in Page(html).text
    assert html.count("<section") == 1


def test_without_a_reference_no_contradiction_was_looked_for():
    title = KINDS["reference_contradiction"].title
    text = Page(render_audit(an_audit(reference=[], reference_images=0), {})).text
    assert f"Not looked for, because no reference was given: {title}." in text
    assert text.count(title) == 1
    assert "Compared with" not in text


def test_a_reference_that_knows_none_of_the_images_is_no_comparison():
    text = Page(render_audit(an_audit(reference_images=0), {})).text
    assert "Not looked for, because no reference knows one of these images" in text


def test_an_audit_alone_tells_of_nothing_done():
    cases = {"near_duplicate": [case(image("A", fate=None), image("B", fate=None))]}
    html = render_audit(an_audit(cases, **UNAPPLIED), {})
    text = Page(html).text
    assert "No policy was applied" in text
    assert "1 case, 2 images." in text
    assert "What was done" not in text
    assert "kept" not in section(html, "near_duplicate").text
    assert "Counted is what is readable." in text


@pytest.mark.parametrize(
    ("finding", "done", "words"),
    [
        ("reference_contradiction", (2, 1), "2 put aside, 1 relabelled"),
        ("near_duplicate", (0, 0), "kept"),
        ("exact_duplicate", (0, 0), "nothing"),
    ],
)
def test_what_was_done_is_said_in_a_few_words(finding, done, words):
    html = render_audit(an_audit({finding: [case(image("A"))]}, {finding: done}), {})
    assert f"1 image: {words}." in section(html, finding).text


def test_relabelled_images_are_told_in_the_verdict():
    cases = {"reference_contradiction": [case(image("A", fate="relabelled to melanoma"))]}
    text = Page(render_audit(an_audit(cases, {"reference_contradiction": (0, 1)}), {})).text
    assert "396 were put aside. 1 was given another label." in text
    assert "train · relabelled to melanoma" in text


def test_a_finding_about_classes_shows_no_images():
    cases = {"small_class": [case(detail="dermatofibroma: 12 groups in test")]}
    html = render_audit(an_audit(cases), {})
    assert f"{KINDS['small_class'].title} 1 – keep reported" in Page(html).text
    shown = section(html, "small_class")
    assert "dermatofibroma: 12 groups in test" in shown.text
    assert "figure" not in shown.tags


def test_the_page_stands_alone():
    audit = an_audit({"near_duplicate": [case(image("A"), image("B"))]})
    html = render_audit(audit, {uri: a_jpeg(0) for uri in shown_uris(audit)})
    page = Page(html)
    links = [link for name in ("src", "href", "srcset", "action", "data") for link in page.values(name)]
    assert sum(link.startswith("data:image/jpeg;base64,") for link in links) == 2
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", html)


def test_thumbnails_stand_under_their_image_and_a_missing_one_is_a_box():
    cases = {
        "near_duplicate": [case(image("A"), image("B"), image("C"))],
        "unreadable": [case(image("D"))],
        "missing_image": [case({**image("E"), "uri": None})],
    }
    jpegs = {"/data/set/A.jpg": a_jpeg(0), "/data/set/C.jpg": a_jpeg(1), "/data/other.jpg": a_jpeg(2)}
    html = render_audit(an_audit(cases), jpegs)
    shown = re.findall(r'alt="(.)" src="data:image/jpeg;base64,([^"]+)"', html)
    assert [(name, base64.b64decode(code)) for name, code in shown] == [
        ("A", jpegs["/data/set/A.jpg"]),
        ("C", jpegs["/data/set/C.jpg"]),
    ]
    assert "no picture nevus B" in section(html, "near_duplicate").text
    assert "cannot be read nevus D" in section(html, "unreadable").text
    assert "no file nevus E" in section(html, "missing_image").text


def test_facts_labels_and_file_names_are_escaped():
    evil = "<script>alert('x')</script>\"& Größe"
    shown = case(image(evil, evil, evil, evil, f"/data/set/{evil}"), image("B", "nevus"), detail=evil)
    audit = an_audit(
        {"label_conflict": [shown], "small_class": [case(detail=evil)]},
        source=evil,
        reference=[evil],
        label_set=evil,
        gate={"passes": False, "leaks": [evil]},
        classes={evil: {"images": 1, "groups": 1, "train": 1, "val": 0, "test": 0}},
        sizes={evil: 1},
    )
    html = render_audit(audit, {f"/data/set/{evil}": b"jpeg"})
    page = Page(html)
    assert "<script" not in html
    assert "script" not in page.tags
    assert page.text.count(evil) >= 10
    assert evil in page.values("alt")
    assert f"/data/set/{evil}" in page.values("title")
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_of_many_cases_twelve_are_shown_and_those_with_several_images_first():
    single = [case(image(f"single{i}")) for i in range(380)]
    pairs = [case(image(f"left{i}"), image(f"right{i}")) for i in range(7)]
    html = render_audit(an_audit({"exact_duplicate": single + pairs}), {})
    shown = section(html, "exact_duplicate")
    assert "387 cases, 394 images" in shown.text
    assert "12 of 387 shown, all in audit.json" in shown.text
    assert re.findall(r"left\d+|single\d+", shown.text) == [f"left{i}" for i in range(7)] + [
        f"single{i}" for i in range(5)
    ]


def test_cases_that_disagree_come_before_those_that_agree_and_labels_take_turns():
    agreeing = [case(image(f"A{i}"), image(f"B{i}")) for i in range(20)]
    melanoma = case(image("A90", "melanoma"), image("B90", "melanoma"))
    crossing = case(image("A91"), image("B91", split="test"))
    disputed = case(image("A92"), image("B92", "melanoma"))
    html = render_audit(an_audit({"near_duplicate": [*agreeing, melanoma, crossing, disputed]}), {})
    shown = re.findall(r"A\d+", section(html, "near_duplicate").text)
    assert shown[:4] == ["A92", "A91", "A0", "A90"]
    assert len(shown) == CASES_SHOWN


def test_of_many_images_of_a_case_the_one_that_differs_is_shown():
    copies = [image(f"copy{i}", fate="quarantined" if i else "kept") for i in range(57)]
    copies[50]["split"] = "test"
    html = render_audit(an_audit({"augmented_copy": [case(*copies)]}), {})
    shown = section(html, "augmented_copy")
    assert re.findall(r"copy\d+", shown.text) == ["copy0", "copy1", "copy2", "copy3", "copy4", "copy50"]
    assert f"({IMAGES_SHOWN} of 57 images shown)" in shown.text


def test_labels_that_conflict_look_different_and_those_that_agree_do_not():
    conflict = case(image("A", "nevus"), image("B", "melanoma"), image("C", "nevus"), image("D", None))
    html = render_audit(an_audit({"label_conflict": [conflict]}), {})
    toned = re.findall(r'class="(tone tone-\d|none)?">([^<]+)<', html)
    assert toned == [
        ("tone tone-0", "nevus"),
        ("tone tone-1", "melanoma"),
        ("tone tone-0", "nevus"),
        ("none", "no label"),
    ]
    same = render_audit(an_audit({"exact_duplicate": [case(image("A"), image("B"))]}), {})
    assert not {"tone", "tone-0"} & Page(same).classes
    contradicted = render_audit(an_audit({"reference_contradiction": [case(image("A"))]}), {})
    assert "tone" in Page(contradicted).classes


def test_splits_that_are_crossed_stand_out():
    crossed = render_audit(an_audit({"split_leak": [case(image("A"), image("B", split="test"))]}), {})
    assert re.findall(r'class="crossing">(\w+)<', crossed) == ["train", "test"]
    held = render_audit(an_audit({"split_leak": [case(image("A"), image("B", split=None))]}), {})
    assert "crossing" not in Page(held).classes


@pytest.mark.parametrize(
    ("uri", "image_id", "short"),
    [
        ("/data/set/Train/nevus/ISIC_1.jpg", "ISIC_1", "Train/nevus"),
        ("/data/set/Train/nevus/ISIC_1.jpg", "Train/nevus/ISIC_1.jpg", ""),
        ("/data/set/ISIC_1.jpg", "ISIC_1", ""),
        ("/data/set/a/b/c/d/other.png", "ISIC_1", "…/d/other.png"),
        (f"/data/set/{'a' * 40}{'b' * 40}.jpg", "ISIC_1", f"{'a' * 23}…{'b' * 20}.jpg"),
        ("/data/settled/nevus/ISIC_1.jpg", "ISIC_1", "…/nevus"),
        ("/data/set::part_1/ISIC_1.jpg", "ISIC_1", "part_1"),
        ("C:\\images\\nevus\\ISIC_1.jpg", "ISIC_1", "…/nevus"),
    ],
)
def test_a_path_is_shortened_and_whole_in_the_title(uri, image_id, short):
    html = render_audit(an_audit({"unreadable": [case(image(image_id, uri=uri))]}), {})
    assert re.findall(r'class="path">([^<]*)<', html) == [short]
    assert uri in Page(html).values("title")


def test_the_uris_shown_are_those_that_the_page_has_a_place_for():
    cases = {
        "missing_image": [case({**image("E"), "uri": None})],
        "exact_duplicate": [case(image(f"A{i}"), image(f"B{i}")) for i in range(40)],
        "near_duplicate": [case(image("A0"), image("B0")), case(*(image(f"C{i}") for i in range(9)))],
    }
    audit = an_audit(cases)
    uris = shown_uris(audit)
    assert len(uris) == len(set(uris)) == 2 * CASES_SHOWN + IMAGES_SHOWN
    html = render_audit(audit, dict.fromkeys(uris, b"jpeg"))
    assert "no picture" not in html
    assert html.count("data:image/jpeg") == 2 * CASES_SHOWN + IMAGES_SHOWN + 2


def test_classes_are_counted_per_split_where_there_are_splits():
    text = Page(render_audit(an_audit(), {})).text
    assert "Class Images Groups train val test melanoma 438 420 300 70 68 nevus 1,525 1,200 1,000 225 300" in text
    assert "All 1,963 1,300 295 368" in text
    unsplit = Page(render_audit(an_audit(classes=without_splits()), {})).text
    assert "Class Images Groups melanoma 8 6 All 8" in unsplit


def test_sizes_come_in_order_of_frequency_and_the_rare_ones_as_one_line():
    sizes = {f"{100 + i}x90": i + 1 for i in range(20)}
    text = Page(render_audit(an_audit(sizes=sizes), {})).text
    assert "Size Images 119 × 90 20 118 × 90 19" in text
    assert "112 × 90 13 12 further sizes 78" in text


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ("/data/set", "dermaray prepare /data/set --out DIR policies.near_duplicate=drop"),
        ("/data/my set", "dermaray prepare '/data/my set' --out DIR"),
        ("/runs/manifest.parquet", "dermaray prepare SOURCE --out DIR"),
    ],
)
def test_the_command_that_changes_a_policy_can_be_copied(source, command):
    assert command in Page(render_audit(an_audit(source=source), {})).text


def test_every_finding_at_once_and_none_at_all_make_a_page():
    every = {name: [case(image("A", None, None, None), image("B"))] for name in KINDS}
    full = render_audit(an_audit(every), {})
    assert full.count("<section") == len(KINDS)
    assert "Looked for and not found" not in full
    empty = render_audit(an_audit(images=0, usable=0, quarantined=0, label_set=None, classes={}, sizes={}), {})
    assert "No image could be read." in empty
    assert "Label set" not in empty
    for html in (full, empty):
        assert "None" not in Page(html).text
