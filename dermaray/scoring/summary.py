"""What a run of bulk scoring came to, counted from the rows that it has written."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dermaray.models.rows import SCORED
from dermaray.scoring.ledger import Ledger

_COLUMNS = ["status", "reason", "message", "label", "alert", "refer", "melanoma_probability", "ood_score"]
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def summarise(ledger: Ledger) -> dict[str, Any]:
    """Count the rows that are there.

    Returns:
        `images`, which `scored` and the counts of `dead_letters` by reason add up to; of those scored the counts of
        `labels`, `alerts` (None where the model gives none), `referred` and `strange`; `melanoma_probability` at some
        quantiles; and `message`, that of the first dead letter.
    """
    images = alerts = referred = strange = 0
    reasons: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    probabilities, can_alert, message = [], False, None
    for rows in ledger.rows(_COLUMNS):
        images += rows.num_rows
        reasons.update(rows["reason"].drop_null().to_pylist())
        if message is None and rows["message"].null_count < rows.num_rows:
            message = rows["message"].drop_null()[0].as_py()
        scored = rows.filter(pc.equal(rows["status"], SCORED))
        labels.update(scored["label"].to_pylist())
        can_alert = can_alert or scored["alert"].null_count < scored.num_rows
        alerts += pc.sum(scored["alert"]).as_py() or 0
        referred += pc.sum(scored["refer"]).as_py() or 0
        strange += pc.sum(pc.greater(scored["ood_score"], 1)).as_py() or 0
        probabilities.append(scored["melanoma_probability"].drop_null().to_numpy())
    known = np.concatenate(probabilities) if probabilities else np.empty(0)
    return {
        "images": images,
        "scored": images - reasons.total(),
        "dead_letters": dict(sorted(reasons.items())),
        "labels": dict(sorted(labels.items())),
        "alerts": alerts if can_alert else None,
        "referred": referred,
        "strange": strange,
        "melanoma_probability": {f"{q:.0%}": float(np.quantile(known, q)) for q in _QUANTILES} if len(known) else None,
        "message": message,
    }
