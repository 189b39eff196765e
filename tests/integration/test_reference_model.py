"""The model in the box: whole, small, what its configuration says, and used where none is named."""

import csv
import json
import os
from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from dermaray.config import RunConfig, load_config
from dermaray.evaluation import card
from dermaray.models.artifact import LITERT, Artifact, open_artifact
from dermaray.models.predictor import Predictor
from jobs.options import REFERENCE

RunJob = Callable[..., int]

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("DERMARAY_DATA", ROOT.parent / "shared" / "data")) / "ham10000"
HELD_OUT = 300


@pytest.fixture(scope="module")
def reference() -> Artifact:
    return open_artifact(REFERENCE)


def test_it_is_whole_and_small(reference: Artifact) -> None:
    reference.verify()
    assert LITERT in reference.files
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) < 20_000_000


def test_its_card_says_what_cards_say_now(reference: Artifact) -> None:
    text = (REFERENCE / "MODEL_CARD.md").read_text()
    for sentences in (card._LOW, *card._USE, *card._limits(reference.label_set).paragraphs, *card._promises(reference)):
        assert sentences in text, "Write it anew: dermaray evaluate --model models/reference --data ... --card"


def test_it_is_what_its_configuration_makes(reference: Artifact) -> None:
    config = load_config(ROOT / "configs" / "reference.yaml")
    assert reference.name == config.name
    assert reference.input_spec == config.input
    made, wanted = reference.provenance, config.model_dump()
    assert {name: wanted[name] for name in made["config"]} == made["config"]
    assert len(made["members"]) == config.members
    for number, member in enumerate(made["members"]):
        # Keys may have come since that leave it as it is.
        trained = RunConfig.model_validate(member["provenance"]["config"])
        assert trained.seed == config.seed + number
        own = {name: getattr(trained, name) for name in ("name", "out", "seed", "members", "views", "weights_as")}
        assert config.model_copy(update=own) == trained


def test_its_card_says_what_it_may_be_used_for(reference: Artifact) -> None:
    card = (REFERENCE / "MODEL_CARD.md").read_text()
    assert "CC BY-NC" in card
    assert "not a medical device" in card
    assert reference.digest in card


def test_it_scores_where_no_model_is_named(
    images: Path, run_job: RunJob, tmp_path: Path, capsys: pytest.CaptureFixture[str], reference: Artifact
) -> None:
    run_job("score", images / "nevus", "--out", tmp_path / "scores", "--actors", 1)
    assert "using the reference model" in " ".join(capsys.readouterr().out.split())
    rows = pq.read_table(tmp_path / "scores" / "scores.parquet")
    assert set(rows["model_digest"].to_pylist()) == {reference.digest}
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["scored"] == rows.num_rows


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA} (DERMARAY_DATA)")
def test_it_knows_lesions_that_it_has_never_seen(reference: Artifact) -> None:
    seen = {
        digest for table in (reference.trained_on(), reference.decided_on()) for digest in table["sha256"].to_pylist()
    }
    with (DATA / "HAM10000_metadata.csv").open(newline="") as file:
        listed = {row["image_id"]: row["dx"] for row in csv.DictReader(file)}
    files = {image_id: DATA / "images" / f"{image_id}.jpg" for image_id in sorted(listed)}
    # No further than it takes: there are ten thousand.
    unseen = (
        (image_id, data)
        for image_id, path in files.items()
        if path.exists() and sha256(data := path.read_bytes()).hexdigest() not in seen
    )
    chosen = dict(islice(unseen, HELD_OUT))
    predictor = Predictor(reference)
    answers = predictor.named(predictor.decide([predictor.decode(data).pixels for data in chosen.values()]))
    labels = [reference.label_set.resolve(listed[image_id]) for image_id in chosen]
    assert balanced_accuracy_score(labels, [answer.label for answer in answers]) > 0.6
    melanoma = [label == "MEL" for label in labels]
    assert roc_auc_score(melanoma, [answer.melanoma_probability for answer in answers]) > 0.85
