"""How far a run is, for whoever watches it: a file beside the rows, and Ray's metrics, which Prometheus reads."""

import time
from contextlib import suppress

from ray.util.metrics import Gauge

from dermaray.errors import OutputError
from dermaray.scoring.ledger import PROGRESS, Ledger
from dermaray.scoring.listed import Listed

_TELL_SECONDS = 5.0
"""Between two writings of `progress.json`."""

_GAUGES = {
    "done": ("dermaray_score_images_done", "Images of the run that have their rows"),
    "images": ("dermaray_score_images", "Images of the run, where that is known"),
    "images_per_second": ("dermaray_score_images_per_second", "Rows a second since the command began"),
    "seconds_left": ("dermaray_score_seconds_left", "Until all have their rows, at this rate, where that is known"),
}


class Watch:
    """Tell of a run as it goes.

    Args:
        ledger: The run.
        inputs: What it is done to.
        there: Images that had their rows when the command began.
    """

    def __init__(self, ledger: Ledger, inputs: Listed, there: int) -> None:
        self._ledger, self._inputs, self._there = ledger, inputs, there
        self._gauges = {name: Gauge(*told, tag_keys=("out",)) for name, told in _GAUGES.items()}
        self._began = self._told = time.monotonic()
        self._count = 0

    @property
    def seconds(self) -> float:
        """Since the command began to score."""
        return time.monotonic() - self._began

    def tell(self, count: int) -> None:
        """Take the number of images that have got their rows since then."""
        self._count = count
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._told = time.monotonic()
            rate = count / self.seconds
            images = self._inputs.images
            self._write(images, round((images - self._there - count) / rate) if images is not None and count else None)

    def end(self) -> None:
        """Tell that all images have their rows."""
        self._write(self._there + self._count, 0)

    def _write(self, images: int | None, seconds_left: int | None) -> None:
        rate = round(self._count / max(self.seconds, 1e-9), 1)
        done = self._there + self._count
        known = {"images": images, "done": done, "images_per_second": rate, "seconds_left": seconds_left}
        for name, gauge in self._gauges.items():
            if (value := known[name]) is not None:
                gauge.set(value, {"out": self._ledger.place})
        # It is for show alone.
        with suppress(OutputError):
            self._ledger.tell(PROGRESS, known)
