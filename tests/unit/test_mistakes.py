import csv

import numpy as np
import pyarrow as pa

from dermaray.decisions.decisions import Decided
from dermaray.evaluation.mistakes import SHOWN, worst_mistakes
from dermaray.evaluation.submission import write_submission
from dermaray.labels import LABEL_SETS, LabelSet

THREE = LabelSet("three", ("nevus", "melanoma", "wart"), frozenset({"melanoma"}), "melanoma")
HARMLESS = LabelSet("three", ("nevus", "mole", "wart"), frozenset(), None)


def decided_of(probabilities):
    images, classes = probabilities.shape
    nothing = np.zeros(images, bool)
    sets = np.zeros((images, classes), bool)
    return Decided(probabilities, probabilities.argmax(axis=1), None, sets, nothing, np.zeros(images, np.float32))


PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.9, 0.05, 0.05], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]])
LABELS = np.array([0, 1, 1, 0, 0])


def test_the_surest_mistakes_come_first_and_missed_melanomas_by_themselves():
    found = worst_mistakes(decided_of(PROBABILITIES), LABELS, THREE)
    assert {kind: [m.row for m in mistakes] for kind, mistakes in found.items()} == {
        "Malignant, called by a class that is not": [2, 1],
        "Other mistakes": [3, 4],
    }
    worst = found["Malignant, called by a class that is not"][0]
    assert (worst.truth, worst.answer, worst.sure, worst.of_truth) == ("melanoma", "nevus", 0.9, 0.05)


def test_without_malignant_classes_there_is_one_kind():
    assert list(worst_mistakes(decided_of(PROBABILITIES), LABELS, HARMLESS)) == ["Mistakes"]


def test_no_mistake_no_kind():
    assert worst_mistakes(decided_of(np.eye(3)), np.arange(3), THREE) == {}


def test_of_many_some_are_shown():
    found = worst_mistakes(decided_of(np.tile([0.9, 0.05, 0.05], (50, 1))), np.full(50, 2), THREE)
    assert [len(mistakes) for mistakes in found.values()] == [SHOWN]


def test_a_submission_has_the_columns_of_the_challenge(tmp_path):
    label_set = LABEL_SETS["isic2019"]
    columns = {name: [0.5, 0.25] for name in label_set.classes}
    with (tmp_path / "s.csv").open("w", newline="") as file:
        write_submission(file, pa.table({"image_id": ["ISIC_2, again", "ISIC_1"], **columns}), label_set)
    with (tmp_path / "s.csv").open(encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    # As the challenge of 2019 describes it.
    assert header == ["image", "MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    assert (first[0], first[1], second[0], second[1], first[-1]) == ("ISIC_1", "0.25", "ISIC_2, again", "0.5", "0.0")
