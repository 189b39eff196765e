"""serve run serve.app:build_app model=runs/case-study-balanced/model

The HTTP application: an ingress that decodes uploads, and classifiers that score them in batches. `dermaray serve`
runs it on a laptop, `k8s/rayservice.yaml` on a cluster; both name `serve.app:build_app`.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import compress
from pathlib import Path
from typing import Any

import cv2
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from dermaray.errors import ArtifactError, ImageError
from dermaray.images.decode import MAX_PIXELS, DecodedImage, claimed_pixels, decode_image
from dermaray.images.resize import UInt8Array
from dermaray.models.artifact import Artifact, open_artifact
from dermaray.models.own_process import import_keras, return_memory
from dermaray.models.predictor import Prediction, Predictor
from serve.room import Room
from serve.upload import STATUS_OF_REASON, read_upload

_DECODERS = 4
"""Images that are decoded at a time; of `MAX_PIXELS` in all, each of which takes up to 18 bytes meanwhile (WebP)."""

_AGAIN_SECONDS = 0.2
"""After which a request is passed on again whose model the classifier that took it does not hold."""

_REQUEST_SECONDS = 29
"""That a request may take, from the moment that it has a place: a second less than Ray Serve is told."""

_RETRY_AFTER = {"Retry-After": "5"}

_FILE = {"type": "string", "format": "binary"}
_UPLOADS = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _FILE}, "required": ["file"]}},
        "image/*": {"schema": _FILE},
    },
}
"""What may be sent, for the page that lets people try it."""


_AT_ONCE = 64
"""Requests that a classifier takes at a time: Ray Serve's default of five would starve the batches."""


class ServeArgs(BaseModel):
    """What the application is built with.

    Attributes:
        model: The folder of an artifact, readable from every node.
        digest: The model's; found by `build_app`. A replica that finds another model there does not start.
        max_batch_size: Images that one replica scores at once, at most.
        batch_wait_timeout_s: How long a batch waits to be filled, in seconds.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    digest: str | None = None
    max_batch_size: int = Field(16, ge=1, le=_AT_ONCE)
    batch_wait_timeout_s: float = Field(0.01, ge=0.0, le=10.0)


def _opened(args: ServeArgs) -> Artifact:
    """Open the model that the application was built with: replicas start at any time, and what answers must agree."""
    artifact = open_artifact(Path(args.model))
    if args.digest not in (None, artifact.digest):
        raise ArtifactError(
            f"{args.model} holds another model than the one that was deployed. Give each model a folder of its own, "
            "and deploy that"
        )
    return artifact


@serve.deployment(max_ongoing_requests=_AT_ONCE)
class Classifier:
    """Holds the model and scores decoded images in batches."""

    def __init__(self, args: ServeArgs) -> None:
        import_keras()
        return_memory()
        self._predictor = Predictor(_opened(args))
        self.predictions.set_max_batch_size(args.max_batch_size)
        self.predictions.set_batch_wait_timeout_s(args.batch_wait_timeout_s)
        # The first batch traces the graph; let no request wait for that.
        self._predictor.decide([self._predictor.blank()])

    async def ready(self, digest: str) -> bool:
        """Tell whether this replica holds a model; it answers when its own is loaded."""
        return digest == self._predictor.artifact.digest

    @serve.batch  # type: ignore[untyped-decorator]
    async def predictions(self, digests: list[str], pixels: list[UInt8Array]) -> list[Prediction | None]:
        """Score images, uint8 [height, width, 3] each; called with one and batched by Ray Serve.

        Those that were decoded for another model have None: while a new one is deployed, replicas of both are there.
        """
        own = [digest == self._predictor.artifact.digest for digest in digests]
        decided = await asyncio.to_thread(self._predictor.decide, list(compress(pixels, own)))
        answers = iter(self._predictor.named(decided))
        return [next(answers) if known else None for known in own]


api = FastAPI(title="dermaray", description="Research use only. Not a medical device.", docs_url="/docs")


@api.exception_handler(ImageError)
async def _refuse(_: Request, error: ImageError) -> JSONResponse:
    content = {"error": {"reason": error.reason, "message": str(error)}}
    return JSONResponse(content, STATUS_OF_REASON[error.reason])


@api.exception_handler(TimeoutError)
async def _give_up(request: Request, _: TimeoutError) -> JSONResponse:
    return await _refuse(request, ImageError("timed_out", f"the image did not come within {_REQUEST_SECONDS} s"))


class _Unanswered(Exception):
    """What was asked for came in time, and the answer did not: no fault of who asks."""


@api.exception_handler(_Unanswered)
async def _ask_again(_: Request, __: _Unanswered) -> JSONResponse:
    content = {"error": {"reason": "overloaded", "message": f"not answered within {_REQUEST_SECONDS} s. Ask again"}}
    return JSONResponse(content, 503, _RETRY_AFTER)


@asynccontextmanager
async def _answered_by(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise _Unanswered from None


def _deadline() -> float:
    return asyncio.get_running_loop().time() + _REQUEST_SECONDS


# Ray Serve reads bodies before it asks how large they may be, those of requests that wait too. See docs/serving.md.
@serve.deployment(max_ongoing_requests=32, max_queued_requests=64)
@serve.ingress(api)
class Ingress:
    """Takes uploads, decodes them as the model wants them, and answers with predictions."""

    def __init__(self, args: ServeArgs, classifier: DeploymentHandle) -> None:
        return_memory()
        # A picture has one of the decoders' threads; more would get in each other's way.
        cv2.setNumThreads(1)
        self._artifact = _opened(args)
        self._classifier = classifier
        # A pool of its own: the event loop's has up to 32 threads, and a picture of few bytes may be large.
        self._decoders = ThreadPoolExecutor(_DECODERS)
        self._room = Room(MAX_PIXELS)

    @api.post("/v1/predict", openapi_extra={"requestBody": _UPLOADS})
    async def predict(self, request: Request) -> dict[str, Any]:
        """Score one image, sent as the body itself or as a file of a multipart form."""
        # Ray Serve has a limit, too, which a header of the client's can lift.
        deadline = _deadline()
        async with asyncio.timeout_at(deadline):
            data = await read_upload(request)
        async with _answered_by(deadline):
            decoded = await self._decoded(data)
            while (prediction := await self._scored(decoded.pixels)) is None:
                await asyncio.sleep(_AGAIN_SECONDS)
        return {**asdict(prediction), "width": decoded.width, "height": decoded.height}

    async def _decoded(self, data: bytes) -> DecodedImage:
        loop = asyncio.get_running_loop()
        taken = await self._room.take(await loop.run_in_executor(self._decoders, claimed_pixels, data))
        decoding = self._decoders.submit(decode_image, data, self._artifact.input_spec)
        # A thread that has begun goes on, and keeps its memory, when nobody waits for it any more.
        decoding.add_done_callback(lambda _: loop.call_soon_threadsafe(self._room.give, taken))
        return await asyncio.wrap_future(decoding)

    async def _scored(self, pixels: UInt8Array) -> Prediction | None:
        answer: Prediction | None = await self._classifier.predictions.remote(self._artifact.digest, pixels)
        return answer

    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Say, as soon as there is a loaded model, that requests are taken, and by which."""
        async with _answered_by(_deadline()):
            while not await self._classifier.ready.remote(self._artifact.digest):
                await asyncio.sleep(_AGAIN_SECONDS)
        return {"status": "ok", "model": self._artifact.name, "model_digest": self._artifact.digest}


def build_app(args: ServeArgs) -> Application:
    """Build the application.

    Raises:
        ArtifactError: There is no usable model where `args` says.
    """
    artifact = _opened(args.model_copy(update={"model": str(Path(args.model).resolve())}))
    resolved = args.model_copy(update={"model": str(artifact.path), "digest": artifact.digest})
    return Ingress.bind(resolved, Classifier.bind(resolved))  # type: ignore[attr-defined]
