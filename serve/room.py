"""How many pixels are decoded at a time."""

import asyncio


class Room:
    """Holds so many pixels; whoever needs more than are free waits for them, in order.

    Args:
        pixels: How many.
    """

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._order = asyncio.Lock()
        self._given = asyncio.Event()

    async def take(self, pixels: int) -> int:
        """Wait for so many, or for all where they are more; returns what to `give` back."""
        taken = min(pixels, self._all)
        async with self._order:
            while self._free < taken:
                self._given.clear()
                await self._given.wait()
            self._free -= taken
        return taken

    def give(self, pixels: int) -> None:
        """Give back what was taken; from the thread of the event loop."""
        self._free += pixels
        self._given.set()
