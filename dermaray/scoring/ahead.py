"""A thread that works ahead of whoever takes its results, and is given up when it takes too long over one."""

import threading
from collections.abc import Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.5
"""How often a thread with nobody to take its results looks whether it has been given up."""


class _End:
    """What a thread puts last: nothing, or what it failed with."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Ahead(Generic[T]):
    """Values of an iterator, made by a thread of their own while earlier ones are worked on.

    Args:
        values: What to go through; its errors are raised where its values would have been taken.
        count: Made ahead, at most.
    """

    def __init__(self, values: Iterator[T], count: int) -> None:
        self._values = values
        self._made: Queue[T | _End] = Queue(count)
        self._given_up = threading.Event()
        # It may hang where no signal reaches it; the process ends all the same.
        threading.Thread(target=self._work, daemon=True).start()

    def take(self, seconds: float) -> Iterator[T]:
        """Yield the values.

        Raises:
            TimeoutError: The next one took longer than so many seconds.
        """
        while True:
            try:
                value = self._made.get(timeout=seconds)
            except Empty:
                raise TimeoutError from None
            if isinstance(value, _End):
                if value.error is not None:
                    raise value.error
                return
            yield value

    def give_up(self) -> None:
        """Let the thread end when it next has a value, which is lost with those that were not taken."""
        self._given_up.set()

    def _work(self) -> None:
        try:
            for value in self._values:
                if not self._put(value):
                    return
            self._put(_End())
        except BaseException as error:
            self._put(_End(error))

    def _put(self, value: T | _End) -> bool:
        while not self._given_up.is_set():
            try:
                self._made.put(value, timeout=_LOOK_SECONDS)
            except Full:
                continue
            return True
        return False
