"""What remote workers tell, brought to a function in the driver while the driver waits, and a word from it to them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Message = dict[str, Any]

_TAKE_SECONDS = 0.5


class Relay:
    """Takes what workers tell, and tells them in return whether they are asked to stop.

    Args:
        exchange: The handle of an actor, an `_Exchange`.
    """

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange

    def __call__(self, message: Message) -> bool:
        """Tell the driver something; called by a worker.

        Returns:
            Whether the driver asks to stop.
        """
        import ray

        try:
            return bool(ray.get(self._exchange.tell.remote(message)))
        # Whatever is wrong with the display, the work goes on.
        except Exception:
            return False

    def ask_to_stop(self) -> None:
        """Ask workers to stop, at the next thing that one of them tells; called by the driver."""
        # Where Ray is gone, so are they.
        with suppress(Exception):
            self._exchange.ask_to_stop.remote()


@contextmanager
def relay(receive: Callable[[Message], None]) -> Iterator[Relay]:
    """Yield what any worker may call; what it is given reaches `receive` in this process, in a thread.

    Messages still under way when the block ends are dropped: they are for display.
    """
    import ray

    exchange = ray.remote(num_cpus=0)(_Exchange).remote()
    done = threading.Event()

    def pump() -> None:
        while not done.is_set():
            try:
                message = ray.get(exchange.take.remote(_TAKE_SECONDS))
                if message is not None:
                    receive(message)
            # The actor is gone when Ray goes down first, and so may be who reads what is displayed.
            except Exception:
                return

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield Relay(exchange)
    finally:
        done.set()
        thread.join(timeout=5)
        with suppress(Exception):
            ray.kill(exchange)


class _Exchange:
    """Holds messages until the driver takes them, and the driver's word until a worker asks."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._stop = False

    async def tell(self, message: Message) -> bool:
        self._told.put_nowait(message)
        return self._stop

    async def take(self, seconds: float) -> Message | None:
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._told.get(), seconds)
        return None

    async def ask_to_stop(self) -> None:
        self._stop = True
