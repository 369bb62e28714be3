"""A fault of the server itself is told to whoever runs it, and to who asked no more than that there was one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from serving.server import described, tensors
from serving.server.app import App
from serving.server.limits import Limits
from serving.server.served import open_file
from serving.server.service import Service
from tests.serving.server.conftest import with_model
from tests.support.wire import INFER, infer


def fault(*_: object) -> None:
    raise RuntimeError("a secret of the host")


@pytest.mark.parametrize(("method", "path"), [("POST", INFER), ("GET", "/v2")], ids=["direct", "routed"])
def test_a_fault_is_500_in_json_without_what_it_was_and_the_next_request_is_answered(
    method: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ask(app: App) -> list[Message]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": infer(), "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"content-length", b"1")]
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": headers,
            "query_string": b"",
        }
        await app(scope, receive, send)
        return sent

    async def play() -> None:
        service = Service(open_file(with_model(tmp_path) / "models/model.onnx", "auto", 4), Limits())
        app = App(service)
        with monkeypatch.context() as patch:
            patch.setattr(tensors, "parse", fault)
            patch.setattr(described, "server", fault)
            start, body = await ask(app)
        assert start["status"] == 500
        assert (b"content-type", b"application/json") in start["headers"]
        assert body["body"] == b'{"error": "the server failed on this request"}'
        assert (service.metrics.held, service.metrics.requests[path if method == "POST" else "other", 500]) == (0, 1)
        assert (await ask(app))[0]["status"] == 200
        await app.close()

    asyncio.run(play())
    assert capsys.readouterr().err.count("RuntimeError: a secret of the host") == 1
