import base64
import io
import json
import re
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dermaray.decisions.fit import fit_decisions
from dermaray.decisions.settings import DecisionConfig
from dermaray.errors import DataError, OutputError
from dermaray.evaluation.measure import measure
from dermaray.evaluation.metrics import compute_metrics
from dermaray.evaluation.mistakes import worst_mistakes
from dermaray.evaluation.plots import (
    plot_confusion_matrix,
    plot_precision_recall_curves,
    plot_recall,
    plot_reliability,
    plot_roc_curves,
)
from dermaray.evaluation.report import write_report
from dermaray.labels import LABEL_SETS, LabelSet

JPEG = b"\xff\xd8 a picture"
FACTS = {"Model": "lite0", "Data": "a set", "Split": "test", "Images": "60"}
PLOTS = [
    "confusion_matrix.png",
    "precision_recall_curves.png",
    "recall.png",
    "reliability.png",
    "roc_curves.png",
]


def random_case(label_set, images=60, classes=None):
    rng = np.random.default_rng(0)
    labels = np.arange(images) % (classes or len(label_set.classes))
    probabilities = rng.dirichlet(np.ones(len(label_set.classes)), images)
    probabilities[np.arange(images), labels] += 0.2
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


@cache
def measured(label_set, **case):
    """Return what a model with decisions, fitted on these very images, says of them and comes to."""
    probabilities, labels = random_case(label_set, **case)
    number = len(labels)
    groups, features = np.arange(number), np.random.default_rng(0).normal(size=(number, 4))
    decisions = fit_decisions(probabilities, features, labels, groups, label_set, DecisionConfig())
    images = pa.table(
        {
            "group_id": groups,
            "lesion_id": pa.array([None, "lesion"] * number, pa.string())[:number],
            "patient_id": pa.nulls(number, pa.string()),
            "sex": (["female", "male"] * number)[:number],
            "age": pa.nulls(number, pa.float32()),
            "site": pa.nulls(number, pa.string()),
        }
    )
    decided = decisions(probabilities, features)
    metrics = measure(decided, labels, images, label_set, decisions)
    metrics["decisions"]["fitted_on"] = number
    return decided, labels, metrics


def report(out, label_set=LABEL_SETS["kaggle9"], facts=FACTS, **case):
    decided, labels, metrics = measured(label_set, **case)
    gallery = {
        kind: [(mistake, f"image-{mistake.row}", None if mistake.row % 2 else JPEG) for mistake in found]
        for kind, found in worst_mistakes(decided, labels, label_set).items()
    }
    write_report(out, metrics, decided, labels, label_set, facts, gallery)
    return metrics, (out / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """The tags, attributes and words of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)


def test_the_folder_holds_metrics_plots_and_the_page(tmp_path):
    metrics, _ = report(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "plots", "report.html"]
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == PLOTS
    written = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert written == {"facts": FACTS, "warnings": [], **metrics}
    assert list(written["facts"]) == list(FACTS)


def test_the_page_shows_facts_figures_baseline_and_the_note(tmp_path):
    metrics, html = report(tmp_path, images=180)
    text = Page(html).text
    assert re.search("Model lite0 Data a set Split test Images 60", text)
    assert f"Balanced accuracy {metrics['balanced_accuracy']:.1%}" in text
    assert f"Accuracy {metrics['accuracy']:.1%}" in text
    assert f"{metrics['melanoma_auc']:.3f}" in text
    assert f"Always “{metrics['majority_baseline']['class']}” {metrics['majority_baseline']['accuracy']:.1%}" in text
    assert text.count("Research use only. Not a medical device.") == 2
    assert "of 90 of these images they name neither" in text
    assert "The figures are too good. 180 of these images chose the model’s epoch or fitted its decisions." in text
    row, (low, high) = metrics["per_class"]["melanoma"], metrics["intervals"]["per_class"]["melanoma"]["recall"]
    assert f"melanoma malignant {row['images']} {row['recall']:.1%} {100 * low:.1f} to {high:.1%}" in text
    assert f"{row['specificity']:.1%}" in text
    assert f"{row['average_precision']:.3f}" in text
    titles = {"brier": "Brier score", "ece": "Calibration error", "melanoma_partial_auc": "Melanoma partial AUC"}
    for name, title in titles.items():
        low, high = metrics["intervals"][name]
        assert f"{title} {metrics[name]:.3f} {low:.3f} to {high:.3f}" in text
    low, high = metrics["intervals"]["balanced_accuracy"]
    assert f"{100 * low:.1f} to {high:.1%}" in text
    women = metrics["subgroups"]["sex"]["female"]
    assert re.search(rf"female {women['images']} {women['melanomas']} (low |low\? )?{women['accuracy']:.1%}", text)
    sensitivity = metrics["melanoma_sensitivity_at_specificity"]["0.9"]
    assert f"90% {sensitivity:.1%}" in text
    assert text.count(" malignant ") >= 3
    assert "nevus malignant" not in text
    assert "NaN" not in text
    assert "None" not in text


def test_the_page_stands_alone(tmp_path):
    """Nothing is fetched, and the plots inside it are those in the folder."""
    _, html = report(tmp_path)
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    plots = [link for link in links if link.startswith("data:image/png;base64,")]
    assert len(plots) == len(PLOTS)
    assert all(link.startswith("data:image/jpeg;base64,") for link in set(links) - set(plots))
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    inside = {base64.b64decode(link.partition(",")[2]) for link in plots}
    assert inside == {(tmp_path / "plots" / name).read_bytes() for name in PLOTS}


def test_facts_and_class_names_are_escaped(tmp_path):
    evil = "<script>alert('x')</script>\"&"
    label_set = LabelSet("custom", (evil, "nevus"), frozenset({evil}), evil)
    _, html = report(tmp_path, label_set, {"Model": evil, evil: "value"})
    assert "<script" not in html
    page = Page(html)
    assert "script" not in page.tags
    # Twice as a fact, once as the title, then in the table.
    assert page.text.count(evil) >= 4


@pytest.mark.parametrize(
    ("label_set", "case"),
    [
        (LABEL_SETS["isic2018"], {"classes": 2}),
        (LABEL_SETS["isic2018"], {"classes": 1}),
        (LABEL_SETS["isic2018"], {"images": 1}),
        (LabelSet("custom", ("a", "_b")), {}),
        (LabelSet("custom", ("costs $5", "x$_", "y" * 90)), {}),
        (LabelSet("custom", tuple(f"class {i}" for i in range(24))), {}),
    ],
    ids=["classes-without-images", "one-class", "one-image", "no-melanoma", "odd-names", "many-classes"],
)
def test_unusual_sets_make_a_report_too(tmp_path, label_set, case):
    _, html = report(tmp_path, label_set, {}, **case)
    text = Page(html).text
    assert ("Malignant classes" in text) == bool(label_set.malignant)
    assert "NaN" not in text
    assert "None" not in text


def test_undefined_figures_are_dashes(tmp_path):
    _, html = report(tmp_path, LABEL_SETS["isic2018"], classes=1)
    text = Page(html).text
    assert "DF 0 – " in text
    assert "this cannot be measured" in text


def test_a_second_report_replaces_the_first_with_the_same_bytes(tmp_path):
    report(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    report(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"existing folder. Received: .*missing"):
        report(tmp_path / "missing")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "plots").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write to .*Choose another folder"):
        report(tmp_path)


def test_predictions_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    label_set = LABEL_SETS["isic2018"]
    decided, labels, metrics = measured(label_set)
    with pytest.raises(DataError, match="labels must have the shape"):
        write_report(tmp_path, metrics, decided, labels[:-1], label_set, FACTS, {})
    assert list(tmp_path.iterdir()) == []


def test_plots_are_png_files_with_something_drawn():
    label_set = LABEL_SETS["isic2019"]
    probabilities, labels = random_case(label_set)
    metrics = compute_metrics(probabilities, labels, label_set)
    plots = (
        plot_confusion_matrix(metrics, label_set),
        plot_recall(metrics, label_set),
        plot_roc_curves(probabilities, labels, label_set),
        plot_precision_recall_curves(probabilities, labels, label_set),
        plot_reliability(probabilities, labels, probabilities.argmax(axis=1)),
    )
    for png in plots:
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG"
            assert min(image.size) > 400
            # Something was drawn on the white paper.
            assert len(image.convert("L").getcolors(maxcolors=256) or []) > 2
