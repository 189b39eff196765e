"""The shards of a run, as its inputs are listed: a thread goes through them while others are scored."""

import threading
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from dermaray.data.archive import Listing
from dermaray.errors import DataError
from dermaray.scoring.shards import Chain, cut


class Listed:
    """What is known of the inputs by now.

    Args:
        listings: See `dermaray.data.inputs.stream_inputs`.

    Attributes:
        shards: Those that are known, in order; there may be more of them at any time.
        digests: One for each of them, of the listing up to it; see `dermaray.scoring.shards.Chain`.
        ended: Whether all are known.
    """

    def __init__(self, listings: Iterable[Listing]) -> None:
        self.shards: list[pa.Table] = []
        self.digests: list[str] = []
        self.ended = False
        self._images: int | None = 0
        self._ignored: Counter[str] = Counter()
        self._error: Exception | None = None
        self._news = threading.Condition()
        threading.Thread(target=self._work, args=(listings,), daemon=True).start()

    @property
    def digest(self) -> str:
        """That of all that is known; empty where nothing is."""
        return self.digests[-1] if self.digests else ""

    @property
    def images(self) -> int | None:
        """How many images there are in all, or None where nobody knows yet."""
        return self._images if self.ended else None

    @property
    def ignored(self) -> dict[str, int]:
        """How many files were passed over because their names are not those of images, per suffix."""
        return dict(sorted(self._ignored.items()))

    def wait(self, count: float = float("inf"), seconds: float | None = None) -> int:
        """Wait until so many shards are known, or all of them; no longer than a time, where one is given.

        Returns:
            How many are known.

        Raises:
            DataError: The rest cannot be listed.
        """
        with self._news:
            self._news.wait_for(lambda: self.ended or self._error or len(self.shards) >= count, seconds)
        self.check()
        return len(self.shards)

    def check(self) -> None:
        """Raise what ended the listing before its end, if anything did."""
        if self._error is not None:
            raise self._error

    def _work(self, listings: Iterable[Listing]) -> None:
        try:
            digest_of = Chain()
            for shard in cut(self._members(listing) for listing in listings):
                digest = digest_of(shard)
                with self._news:
                    self.digests.append(digest)
                    self.shards.append(shard)
                    self._news.notify_all()
        except OSError as error:
            self._error = DataError(f"the inputs cannot be listed: {error}")
        # Whatever it is, it is told to whoever waits.
        except Exception as error:
            self._error = error
        with self._news:
            self.ended = self._error is None
            self._news.notify_all()

    def _members(self, listing: Listing) -> pa.Table:
        self._ignored.update(listing.ignored)
        if self._images is not None:
            self._images = None if listing.images is None else self._images + listing.images
        return listing.members
