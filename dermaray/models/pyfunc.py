"""A saved model as MLflow loads it: `mlflow.pyfunc.load_model(URI).predict(table)`, from bytes to probabilities."""

from pathlib import Path
from typing import Any

import pandas as pd

from dermaray.models.artifact import open_artifact
from dermaray.models.predictor import Predictor

_BATCH = 32


class ImageModel:
    """What MLflow calls."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, table: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score images.

        Args:
            table: A column `image` of bytes, as the files hold them: JPEG, PNG, TIFF, WebP or BMP.
            params: None is known.

        Returns:
            A row for each: `label`, and the probability of every class, float32, as bulk scoring gives it.

        Raises:
            ImageError: An image cannot be scored.
        """
        classes = self._predictor.artifact.label_set.classes
        parts = [self._scored(table["image"].iloc[at : at + _BATCH]) for at in range(0, len(table), _BATCH)]
        return pd.concat(parts) if parts else pd.DataFrame(columns=["label", *classes])

    def _scored(self, images: pd.Series) -> pd.DataFrame:
        predictor = self._predictor
        probabilities = predictor.probabilities([predictor.decode(data).pixels for data in images])
        table = pd.DataFrame(probabilities, columns=list(predictor.artifact.label_set.classes), index=images.index)
        table.insert(0, "label", table.idxmax(axis=1))
        return table


def _load_pyfunc(path: str) -> ImageModel:
    """Load a model's folder; MLflow calls it by this name."""
    return ImageModel(Predictor(open_artifact(Path(path))))
