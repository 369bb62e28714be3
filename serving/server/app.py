"""The ASGI application: requests for the model, and in front of all of them the token and the count."""

import asyncio
import hmac
import json
import re
import sys
import time
import traceback
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from serving.server import tensors, upload
from serving.server.batcher import Outputs
from serving.server.bodies import WINDOW_BITS, Disconnected, Headers, Held, receive_all
from serving.server.described import MODEL
from serving.server.limits import Limits
from serving.server.log import write
from serving.server.refusal import FAILED, JSON, Header, Refusal, busy
from serving.server.routes import Endpoint, check, routes
from serving.server.served import Served
from serving.server.service import Service

INFER = f"/v2/models/{MODEL}/infer"
PREDICT = "/predict"
OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # without the token: a page, and what watches the process
COMPRESSED_FROM = 2048  # bytes of an answer
BEARER = (b"www-authenticate", b"Bearer")
PACKINGS = (b"gzip", b"deflate")

Answer = tuple[list[Header], bytes]


class App:
    """The ASGI application."""

    def __init__(self, service: Service, token: str | None = None) -> None:
        """Set up the routes.

        Args:
            token: that requests have to bear; None: they need none.
        """
        self._service = service
        self._limits, self._metrics = service.limits, service.metrics
        self._token = None if token is None else token.encode()
        self._decoder = ThreadPoolExecutor(1, "decoder")  # one image is decoded at a time, whatever its size
        self._decoding = 0
        self._direct = {INFER: self._infer, PREDICT: self._predict}
        self._versioned = self._routed(self._infer)
        self._routes = routes(service, self._versioned, self._routed(self._predict))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it."""
        path, started = scope["path"], time.perf_counter()
        # Past Starlette's routing, which would take as long as the rest of such a request.
        answer = self._direct.get(path) if scope["method"] == "POST" else None
        route, status = path if answer else "other", 200
        try:
            self._authorize(scope)
            if answer:
                with Held(self._limits, self._metrics) as held:
                    headers, body = await answer(scope, receive, held)
                    await _send(send, 200, headers, body)
            else:
                status = await self._other(scope, receive, send)
                route = INFER if scope.get("endpoint") is self._versioned else route
        except Refusal as refusal:
            status = refusal.status
            await _send(send, status, [JSON, *refusal.headers], refusal.body)
        except Disconnected:
            return
        except Exception:  # a fault of this program: whoever runs the server is told, whoever asked no more than that
            write(traceback.format_exc().rstrip(), sys.stderr)
            status = 500
            if answer:  # else Starlette has answered
                await _send(send, status, [JSON], FAILED.body)
        self._metrics.answered(route, status, time.perf_counter() - started)

    async def close(self) -> None:
        """End the threads, once all connections are closed: nobody waits for what they still do."""
        await asyncio.to_thread(self._decoder.shutdown, cancel_futures=True)
        await self._service.batcher.close(at_once=True)

    def _authorize(self, scope: Scope) -> None:
        if self._token is None or scope["path"] in OPEN:
            return
        found = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = found.partition(b" ")
        if not (scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)):
            raise Refusal(401, "Authorization: Bearer, with the token of this server, is expected", BEARER)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> int:
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self._routes(scope, receive, noted)
        return status

    def _routed(self, answer: Callable[[Scope, Receive, Held], Awaitable[Answer]]) -> Endpoint:
        """Return the same for Starlette, which calls it where a path names a version."""

        async def endpoint(request: Request) -> Response:
            with Held(self._limits, self._metrics) as held:
                headers, body = await answer(request.scope, request.receive, held)
            return Response(body, headers={name.decode(): value.decode() for name, value in headers})

        return endpoint

    async def _infer(self, scope: Scope, receive: Receive, held: Held) -> Answer:
        headers = dict(scope["headers"])
        body = await receive_all(receive, headers, held, self._limits.body)
        model = self._service.model
        if wanted := scope.get("path_params"):
            check(self._service, wanted["model"], wanted.get("version"))
        predictor = model.predictor
        length = _json_length(headers, body, self._limits)
        request, pixels = tensors.parse(body, length, predictor.image_shape)
        _bound(request, len(predictor.class_names), self._limits)
        found = await self._service.batcher.submit(model, pixels, request.count, request.timeout_s)
        answered, body = tensors.respond(request, MODEL, model.version, predictor.class_names, found)
        if len(body) >= COMPRESSED_FROM and b"accept-encoding" in headers:
            return await asyncio.to_thread(_compressed, answered, body, headers[b"accept-encoding"])
        return answered, body

    async def _predict(self, scope: Scope, receive: Receive, held: Held) -> Answer:
        headers = dict(scope["headers"])
        body = await receive_all(receive, headers, held, self._limits.upload)
        model = self._service.model
        image = await self._decoded(body, headers.get(b"content-type", b"").decode("latin-1"), model)
        found = await self._service.batcher.submit(model, image, 1, self._limits.queue_s)
        return [JSON], json.dumps(_prediction(model, found)).encode()

    async def _decoded(self, body: bytes, content_type: str, model: Served) -> bytes:
        if self._decoding >= self._limits.decoding:
            raise busy(f"{self._decoding} image files wait already")
        self._decoding += 1
        try:
            decode = partial(_pixels, body, content_type, model, time.monotonic() + self._limits.queue_s)
            return await asyncio.get_running_loop().run_in_executor(self._decoder, decode)
        finally:
            self._decoding -= 1


def _pixels(body: bytes, content_type: str, model: Served, due: float) -> bytes:
    if time.monotonic() > due:
        raise Refusal(504, "the deadline passed while the image file waited to be decoded")
    return upload.pixels(body, content_type, model.predictor)


async def _send(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _json_length(headers: Headers, body: bytes, limits: Limits) -> int | None:
    """Return how much of a body is JSON, as its header says; None: all."""
    text = headers.get(tensors.LENGTH)
    if text is not None and not (text.isdigit() and len(text) < 12):
        raise Refusal(400, "Inference-Header-Content-Length is not a number of bytes")
    length = None if text is None else int(text)
    if length == 0:
        _check_raw(headers.get(b"content-type", b""))
    if (len(body) if length is None else min(length, len(body))) > limits.json:
        raise Refusal(413, f"more than {limits.json:,} bytes of JSON; send the images as binary data")
    return length


def _check_raw(content_type: bytes) -> None:
    """See that a body of which all is pixels does not say that it is anything else."""
    if content_type.partition(b";")[0].strip().lower() not in (b"", b"application/octet-stream"):
        found = content_type[:80].decode("latin-1")
        raise Refusal(
            415,
            f"content-type is {found!r}; application/octet-stream is expected, as an Inference-Header-Content-Length "
            "of 0 says that the body is nothing but pixels",
        )


def _bound(request: tensors.Request, classes: int, limits: Limits) -> None:
    """See that neither the request nor its answer is larger than the server takes on."""
    if request.count > limits.images:
        raise Refusal(413, f"{request.count} images in a request; {limits.images} are the most")
    wanted = [min(one.classes or classes, classes) for one in request.outputs if one.classes or not one.binary]
    numbers = request.count * sum(wanted)
    if numbers > limits.numbers:
        raise Refusal(
            413, f"an answer of {numbers:,} numbers in JSON; {limits.numbers:,} are the most, binary_data any"
        )


def _compressed(headers: list[Header], body: bytes, accepted: bytes) -> Answer:
    """Pack an answer, if whoever asked understands that."""
    parts = [part.replace(b" ", b"").lower().split(b";") for part in accepted.split(b",")]
    names = [name for name, *weight in parts if not re.fullmatch(rb"q=0(\.0*)?", b"".join(weight))]
    for encoding in PACKINGS:
        if encoding in names:
            packer = zlib.compressobj(1, wbits=WINDOW_BITS[encoding])
            return [*headers, (b"content-encoding", encoding)], packer.compress(body) + packer.flush()
    return headers, body


def _prediction(model: Served, found: Outputs) -> dict[str, object]:
    (probabilities,) = found["probabilities"].tolist()
    names = model.predictor.class_names
    order = sorted(range(len(names)), key=lambda k: -probabilities[k])
    return {
        "label": names[order[0]],
        "probability": probabilities[order[0]],
        "classes": [{"label": names[k], "probability": probabilities[k]} for k in order],
        "model_name": MODEL,
        **model.about(),
    }
