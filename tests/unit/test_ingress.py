"""The ingress by itself: how much it decodes at a time, and whose fault it is that an answer is late."""

import asyncio
import json
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import ray.serve
from fastapi import Request
from PIL import Image

from dermaray.images.decode import MAX_PIXELS, claimed_pixels
from dermaray.images.spec import InputSpec
from jobs.serve import APPLICATION_NAME, _reason
from serve import app
from serve.room import Room
from tests.odd_files import encode, jpeg, picture


def test_there_is_room_for_so_many_pixels_in_order() -> None:
    async def use() -> list[str]:
        room, began = Room(100), []

        async def decode(name: str, pixels: int) -> None:
            taken = await room.take(pixels)
            began.append(name)
            await asyncio.sleep(0.02)
            began.append(f"{name} ends")
            room.give(taken)

        # The third waits for both, and the fourth, for which there is room, does not pass it.
        await asyncio.gather(decode("a", 40), decode("b", 50), decode("c", 1000), decode("d", 10))
        assert await room.take(100) == 100
        return began

    assert asyncio.run(use()) == ["a", "b", "a ends", "b ends", "c", "c ends", "d", "d ends"]


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (jpeg(1), 120 * 160),
        (encode(picture(1), "WEBP"), 120 * 160),
        (b"\0" * 128 + b"DICM", MAX_PIXELS),
        (b"<html>", 0),
        (b"", 0),
        (encode(Image.new("1", (12_000, 9_000)), "PNG"), 0),
    ],
)
def test_a_file_says_how_many_pixels_it_has(data: bytes, pixels: int) -> None:
    assert claimed_pixels(data) == pixels


def test_a_picture_that_nobody_waits_for_keeps_its_room_until_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on, decoded = threading.Event(), threading.Event(), []

    def decode(data: bytes, _: InputSpec) -> None:
        decoded.append(data)
        began.set()
        go_on.wait(60)

    kind: Any = app.Ingress.func_or_class
    # Ray Serve has made a copy of the class, and of what it refers to.
    monkeypatch.setitem(kind._decoded.__globals__, "decode_image", decode)
    ingress = object.__new__(kind)
    ingress._decoders, ingress._artifact = ThreadPoolExecutor(1), SimpleNamespace(input_spec=InputSpec())
    pixels = 120 * 160

    async def until(free: int) -> None:
        while ingress._room._free != free:
            await asyncio.sleep(0.01)

    async def use() -> None:
        ingress._room = Room(3 * pixels)
        first = asyncio.create_task(ingress._decoded(jpeg(1)))
        await asyncio.to_thread(began.wait)
        # The only thread is taken: of the second nothing is done yet.
        second = asyncio.create_task(ingress._decoded(jpeg(2)))
        await asyncio.sleep(0.05)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        await until(2 * pixels)
        go_on.set()
        await until(3 * pixels)
        assert decoded == [jpeg(1)]

    asyncio.run(asyncio.wait_for(use(), 60))


def test_who_sent_an_image_in_time_is_not_to_blame() -> None:
    async def late() -> None:
        async with app._answered_by(asyncio.get_running_loop().time() + 0.01):
            await asyncio.sleep(1)

    with pytest.raises(app._Unanswered):
        asyncio.run(late())

    def answer(told: Coroutine[Any, Any, Any]) -> tuple[int, str, str | None]:
        found = asyncio.run(told)
        return found.status_code, json.loads(found.body)["error"]["reason"], found.headers.get("retry-after")

    request: Any = Request({"type": "http"})
    assert answer(app._ask_again(request, app._Unanswered())) == (503, "overloaded", "5")
    assert answer(app._give_up(request, TimeoutError())) == (408, "timed_out", None)


def test_a_batch_is_no_larger_than_what_a_classifier_takes_at_a_time() -> None:
    with pytest.raises(ValueError, match="less than or equal to 64"):
        app.ServeArgs(model="m", max_batch_size=65)


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (["", "It failed 3 times. Error:\n\ndermaray.errors.ArtifactError: no model\n"], "no model"),
        (["Traceback:\n  MemoryError\n"], "MemoryError"),
        (["Deploying since 3 s"], ""),
        (None, ""),
    ],
)
def test_why_a_replica_does_not_start_is_said(
    messages: list[str] | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployments = {str(number): SimpleNamespace(message=text) for number, text in enumerate(messages or [])}
    applications = {} if messages is None else {APPLICATION_NAME: SimpleNamespace(deployments=deployments)}
    monkeypatch.setattr(ray.serve, "status", lambda: SimpleNamespace(applications=applications))
    assert _reason() == told
