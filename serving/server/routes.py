"""The routes that need no model: what the server is, how it is, and the page."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.server import described
from serving.server.bodies import Held, receive_all
from serving.server.described import MODEL
from serving.server.metrics import Statistics
from serving.server.page import page
from serving.server.refusal import FAILED, JSON, Refusal
from serving.server.service import Service
from serving.server.tensors import json_object

OPENAPI = Path(__file__).with_name("openapi.json")
FRESH = {"cache-control": "no-store"}  # of what another model answers otherwise
Endpoint = Callable[[Request], Awaitable[Response]]


def routes(service: Service, infer: Endpoint, predict: Endpoint) -> Starlette:
    """Return the application, which answers every error as `{"error": "..."}`.

    Args:
        infer: answers a request for the model, and
        predict: one for an image file.
    """

    def checked(request: Request) -> None:
        check(service, request.path_params["model"], request.path_params.get("version"))

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        contents: dict[str, Any] = {"ready": not service.stopping, "live": True}
        if service.refused:
            contents["refused"] = service.refused
        return JSONResponse(contents, 503 if service.stopping else 200)

    async def server(_: Request) -> Response:
        return JSONResponse(described.server())

    async def metadata(request: Request) -> Response:
        checked(request)
        return JSONResponse(described.metadata(service.model))

    async def model_ready(request: Request) -> Response:
        checked(request)
        return JSONResponse({"name": MODEL, "ready": not service.stopping}, 503 if service.stopping else 200)

    async def configuration(request: Request) -> Response:
        checked(request)
        return JSONResponse(described.configuration(service.model, service.limits))

    async def statistics(request: Request) -> Response:
        if "model" in request.path_params:
            checked(request)
        version = service.model.version
        found = service.batcher.statistics.get(version, Statistics())
        return JSONResponse({"model_stats": [found.contents(MODEL, version)]})

    async def index(request: Request) -> Response:
        wanted = await _json(request, service)
        if type(only_ready := wanted.get("ready", False)) is not bool:
            raise Refusal(400, "ready is not true or false")
        state = "UNAVAILABLE" if service.stopping else "READY"
        entry = {"name": MODEL, "version": service.model.version, "state": state, "reason": ""}
        return JSONResponse([] if only_ready and service.stopping else [entry])

    async def load(_: Request) -> Response:
        raise Refusal(501, "models are neither loaded nor unloaded by request: the registry says which one serves")

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def report(_: Request) -> Response:
        return Response(json.dumps(described.report(service)), headers=FRESH, media_type="application/json")

    async def sample(request: Request) -> Response:
        name, samples = request.path_params["name"], service.model.report.samples
        if name not in (names := [f"{number}.png" for number in range(len(samples))]):
            raise Refusal(404, f"there is no sample {name[:80]!r}; the model has {len(samples)}, from 0.png")
        return Response(samples[names.index(name)].png, headers=FRESH, media_type="image/png")

    model = "/v2/models/{model}"
    application = Starlette(
        routes=[
            Route("/", _fixed(*page())),
            Route("/report", report),
            Route("/samples/{name}", sample),
            Route("/openapi.json", _fixed(OPENAPI.read_bytes(), {"content-type": "application/json"})),
            Route("/metrics", metrics),
            Route("/predict", predict, methods=["POST"]),
            Route("/v2", server),
            Route("/v2/health/live", live),
            Route("/v2/health/ready", ready),
            Route("/v2/models/stats", statistics),
            Route("/v2/repository/index", index, methods=["POST"]),
            *(Route(f"/v2/repository/models/{{model}}/{what}", load, methods=["POST"]) for what in ("load", "unload")),
            *(
                route
                for path in (model, f"{model}/versions/{{version}}")
                for route in (
                    Route(path, metadata),
                    Route(f"{path}/ready", model_ready),
                    Route(f"{path}/config", configuration),
                    Route(f"{path}/stats", statistics),
                    Route(f"{path}/infer", infer, methods=["POST"]),
                )
            ),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _http_error, Exception: _failed},
    )
    application.router.redirect_slashes = False  # to an address that is made of what the client says the host is
    return application


def check(service: Service, model: str, version: str | None) -> None:
    """See that a request is for the model that answers.

    Raises:
        Refusal: it is for another one, or for another version of it.
    """
    if model != MODEL:
        raise Refusal(404, f"unknown model {model[:80]!r}; the one that is served is {MODEL!r}")
    if version not in (None, service.model.version):
        raise Refusal(404, f"version {version[:80]!r} of {MODEL!r} does not answer; {service.model.version!r} does")


def _fixed(content: bytes, headers: dict[str, str]) -> Endpoint:
    async def fixed(_: Request) -> Response:
        return Response(content, headers=headers)

    return fixed


async def _json(request: Request, service: Service) -> dict[str, Any]:
    """Read the object that a body is; without one an empty object."""
    headers = dict(request.scope["headers"])
    if not int(headers.get(b"content-length", b"0")[:18]) and b"transfer-encoding" not in headers:
        return {}
    with Held(service.limits, service.metrics) as held:
        body = await receive_all(request.receive, headers, held, service.limits.json)
        return json_object(body or b"{}")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {name.decode(): value.decode() for name, value in (JSON, *error.headers)}
    return Response(error.body, error.status, headers)


async def _failed(_: Request, __: Exception) -> Response:
    return Response(FAILED.body, FAILED.status, {"content-type": "application/json"})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:80]
    what = f"{request.method} is not for {path!r}" if error.status_code == 405 else f"there is no {path!r}"
    return JSONResponse({"error": what}, error.status_code, error.headers)
