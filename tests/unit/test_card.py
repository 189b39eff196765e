"""The model card: what it says follows from the model and its figures, and a class name breaks no table."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermaray.errors import OutputError
from dermaray.evaluation.card import write_card
from dermaray.evaluation.measure import measure
from dermaray.images.spec import InputSpec
from dermaray.labels import LABEL_SETS, LabelSet
from dermaray.models.artifact import INT8, LITERT, SEEN_SCHEMA, Artifact

ODD = LabelSet("odd", ("nevus", "melanoma", "<wart> a|b"), frozenset({"melanoma"}), "melanoma")
IMAGES = 90


def run_of(manifest="runs/data", fold=None, licence=None):
    return {
        "model": {"backbone": "efficientnet_lite0", "weights": "imagenet"},
        "data": {"manifest": manifest, "fold": fold, "licence": licence},
        "views": 2,
    }


def provenance(**changes):
    return {
        "config": run_of(),
        "data": {"digest": "d" * 64, "images": 123, "source": "somewhere"},
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"dermaray": "0.1.0", "keras": "3.15.0", "ray": "2.60.0"},
        "leaks": [],
        **changes,
    }


@pytest.fixture
def card(tmp_path, decisions_of):
    """Write the card of a model with a provenance, and return its text and its page."""

    def write(label_set=ODD, asked=None, facts=None, files=(), **changes):
        decisions = decisions_of(label_set, **(asked or {}))
        decisions = replace(decisions, facts={**decisions.facts, **(facts or {})})
        made = provenance(**changes)
        artifact = Artifact(
            tmp_path,
            "some-model",
            "7",
            InputSpec(),
            label_set,
            decisions,
            dict.fromkeys(files, "f" * 64),
            "a" * 64,
            made,
        )
        for name, images in (("trained_on", 40), ("decided_on", 9)):
            rows = pa.Table.from_pylist([{"sha256": str(i)} for i in range(images)], SEEN_SCHEMA)
            pq.write_table(rows, tmp_path / f"{name}.parquet")
        rng = np.random.default_rng(0)
        labels = np.arange(IMAGES) % 3
        probabilities = rng.dirichlet(np.ones(len(label_set.classes)), IMAGES)
        decided = decisions(probabilities, rng.normal(size=(IMAGES, 5)))
        images = pa.table(
            {
                "group_id": [f"g{i}" for i in range(IMAGES)],
                "lesion_id": pa.nulls(IMAGES, pa.string()),
                "patient_id": pa.nulls(IMAGES, pa.string()),
                "sex": ["female", "male"] * (IMAGES // 2),
                "age": [30.0] * IMAGES,
                "site": ["back"] * IMAGES,
            }
        )
        write_card(artifact, measure(decided, labels, images, label_set, decisions), {"Split": "test"})
        return (tmp_path / "MODEL_CARD.md").read_text(), (tmp_path / "model_card.html").read_text()

    return write


def test_a_card_says_what_a_model_is_and_is_not(card):
    text, page = card(config=run_of(licence="CC BY-NC 4.0"))
    for told in (
        "# Model card: some-model",
        "**Version:** 7",
        "Research use only",
        "## Limits",
        "**Licence:** CC BY-NC 4.0",
        "123, of which 40 were trained on and 9 validated on",
        "efficientnet_lite0, starting from weights: imagenet",
        "| female | 45 |",
        "at least 90.0% of melanomas",
        "dermaray train --config config.yaml data.manifest=runs/data",
    ):
        assert told in text, told
    for section in text.split("\n## ")[1:]:
        assert f"<h2>{section.splitlines()[0]}</h2>" in page
    assert "<script" not in page
    assert "http:" not in page
    assert "<code>ood_score</code> above 1" in page
    assert "`" not in page.partition("<body")[2]


def test_how_weights_are_kept_and_of_what_run_they_are_is_told(card):
    assert "**Weights:**" not in card()[0]
    text, _ = card(config={**run_of(), "weights_as": "int8"}, run=run_of())
    assert "**Weights:** kernels rounded to int8, with a step for each channel; computed with as float32" in text
    assert "under `provenance` and `run`" in text


def test_what_other_engines_cost_is_told(card):
    text, _ = card(unconverted={LITERT: "no such operation"})
    assert "**LiteRT:** none: the network could not be converted: no such operation" in text
    costs = {"images": 12, "largest_difference": 0.0346, "balanced_accuracy": 0.7, "balanced_accuracy_of_keras": 0.712}
    text, _ = card(files=[LITERT, INT8], engines={INT8: costs})
    assert "**LiteRT:** model.tflite; by how much it differs was not measured" in text
    assert "**LiteRT, int8:** model.int8.tflite; on 12 validation images its probabilities differ by at most" in text
    assert "at most 0.0346 from those by Keras, and its balanced accuracy is 0.700 against 0.712" in text


def test_images_that_name_neither_lesion_nor_patient_are_counted(card):
    told = "of which the data name neither count as a lesion each"
    assert f"Images {told}" in card()[0]
    assert f"5 images {told}" in card(facts={"ungrouped": 5})[0]
    assert told not in card(facts={"ungrouped": 0})[0]


def test_a_class_name_breaks_no_table(card):
    text, page = card()
    rows = [line for line in text.splitlines() if line.startswith("|") and "wart" in line]
    assert len(rows) == 2
    assert all("&lt;wart> a\\|b" in row for row in rows)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert "<wart>" not in page


def test_codes_are_spelled_out_and_what_they_leave_out_is_told(card):
    text, _ = card(label_set=LABEL_SETS["isic2018"])
    assert "MEL (melanoma, malignant); NV (nevus); " in text
    assert "AKIEC counts as not malignant" in text
    text, _ = card()
    assert "**Classes:** nevus; melanoma (malignant); " in text
    assert "AKIEC" not in text


def test_an_answer_that_need_not_be_the_most_probable_is_told(card):
    told = "need not be the one with the highest probability"
    assert told not in card()[0]
    assert told in card(asked={"label": "balanced", "calibration": "bias_corrected"})[0]


def test_leaks_and_an_unknown_licence_are_named(card):
    text, _ = card(leaks=["3 lesions are on two sides"])
    assert "What it was trained on leaks: 3 lesions are on two sides. The figures below must not be believed." in text
    assert "**Licence:** not stated" in text
    assert "none: the network could not be converted" in text


def test_why_there_is_no_litert_file_is_said(card):
    text, _ = card(unconverted={"model.tflite": "no such operation"})
    assert "none: the network could not be converted: no such operation" in text


def test_an_ensemble_names_its_members(card):
    member = {"name": "one", "version": "1", "digest": "b" * 64, "provenance": provenance()}
    text, _ = card(members=[member, {**member, "name": "two"}], config={"views": 4}, run=None)
    assert "**Networks:** efficientnet_lite0, starting from weights: imagenet; efficientnet_lite0" in text
    assert "one (bbbbbbbbbbbbbbbb) two (bbbbbbbbbbbbbbbb)" in text
    whole, _ = card(members=[member], config={"views": 4}, run=run_of("runs/folds"))
    assert "data.manifest=runs/folds" in whole


def test_decisions_for_other_data_do_not_take_its_name_for_what_was_learnt(card):
    member = {"name": "m", "digest": "e" * 64}
    learnt = provenance(config=run_of(licence="CC BY-NC 4.0"))
    text, _ = card(
        config={"views": 1},
        members=[{**member, "provenance": learnt}],
        data={"digest": "f" * 64, "images": 500, "source": "clinic"},
    )
    assert f"**Trained on:** 40 images of somewhere ({'d' * 16})" in text
    assert "**Validated on:** 9 images" in text
    assert f"**Digest of the latter:** {'f' * 64}" in text
    assert "**Licence:** CC BY-NC 4.0" in text
    assert "**Source:**" not in text


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (
            {"name": "first", "version": "3", "digest": "e" * 64, "provenance": provenance(config=run_of(licence="X"))},
            f"starting from the weights of first, version 3, {'e' * 16}\n",
        ),
        ({"file": "w.h5"}, "starting from weights: imagenet, of which it is not known what they were trained on\n"),
    ],
)
def test_what_a_network_started_from_is_told(start, told, card):
    text, _ = card(started_from=start)
    assert told in text
    assert ("**Licence:** X" in text) == ("provenance" in start)
    assert "must be there; the data must have the digest above" in text


def test_a_network_may_start_from_a_model_with_other_decisions(card):
    member = {"name": "first", "digest": "e" * 64, "provenance": provenance(config=run_of(licence="X"))}
    refitted = {**provenance(config={"views": 1}, data={"digest": "f" * 64, "source": "clinic"}), "members": [member]}
    text, _ = card(started_from={"name": "r", "version": "1", "digest": "c" * 64, "provenance": refitted})
    assert "**Licence:** X" in text


def test_a_fold_says_that_it_is_one(card):
    data = {"digest": "d" * 64, "images": 123, "fold": 2, "unfolded_digest": "e" * 64}
    text, _ = card(data=data)
    assert "It is fold 2 of a run with `folds`" in text
    assert "e" * 64 in text


def test_a_folder_that_cannot_be_written_is_named(card, tmp_path):
    (tmp_path / "MODEL_CARD.md").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        card()
