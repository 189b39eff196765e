"""What remote workers tell, brought to a function in the driver while the driver waits."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Message = dict[str, Any]


@contextmanager
def relay(receive: Callable[[Message], None]) -> Iterator[Callable[[Message], None]]:
    """Yield a function that any worker may call; what it is given reaches `receive` in this process, in a thread.

    Messages still under way when the block ends are dropped: they are for display.
    """
    from ray.util.queue import Empty, Queue

    queue = Queue(actor_options={"num_cpus": 0})
    done = threading.Event()

    def pump() -> None:
        while not done.is_set():
            try:
                receive(queue.get(timeout=0.5))
            except Empty:
                continue
            # The actor is gone when Ray goes down first: nothing is left to be told.
            except Exception:
                return

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield _Teller(queue)
    finally:
        done.set()
        thread.join(timeout=5)
        queue.shutdown(force=True)


class _Teller:
    """Puts messages into the queue; that nobody takes them any more is no reason for a worker to fail."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __call__(self, message: Message) -> None:
        try:
            self._queue.put_nowait(message)
        # Whatever is wrong with the display, the work goes on.
        except Exception:
            return
