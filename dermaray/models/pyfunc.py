"""A saved model as MLflow loads it: `mlflow.pyfunc.load_model(URI).predict(table)`, from bytes to probabilities."""

from pathlib import Path
from typing import Any

import pandas as pd

from dermaray.models.artifact import open_artifact
from dermaray.models.predictor import ENGINE_BATCH, Predictor

COLUMNS = (
    *("label", "melanoma_probability", "alert", "refer", "prediction_set", "ood_score"),
    *("model", "model_version", "model_digest"),
)
"""What an answer has beside the probabilities; see `dermaray.models.predictor.Prediction`."""


class ImageModel:
    """What MLflow calls."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, table: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score images.

        Args:
            table: A column `image` of bytes, as the files hold them, of any kind that `decode_image` reads.
            params: None is known.

        Returns:
            A row for each, of `COLUMNS` and the probability of every class, as bulk scoring gives them.

        Raises:
            ImageError: An image cannot be scored.
        """
        starts = range(0, max(len(table), 1), ENGINE_BATCH)
        return pd.concat([self._scored(table["image"].iloc[start : start + ENGINE_BATCH]) for start in starts])

    def _scored(self, images: pd.Series) -> pd.DataFrame:
        predictor = self._predictor
        predictions = predictor.named(predictor.decide([predictor.decode(data).pixels for data in images]))
        rows = [[*(getattr(p, name) for name in COLUMNS), *p.probabilities.values()] for p in predictions]
        return pd.DataFrame(rows, columns=[*COLUMNS, *predictor.artifact.label_set.classes], index=images.index)


def _load_pyfunc(path: str) -> ImageModel:
    """Load a model's folder; MLflow calls it by this name."""
    return ImageModel(Predictor(open_artifact(Path(path))))
