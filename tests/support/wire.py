"""HTTP byte by byte, as no client would send it, and what a server says to that."""

import json
import re
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 20
INFER = "/v2/models/classifier/infer"
HOST = re.compile(
    r"/(home|tmp|usr|root|site-packages)\b|0x[0-9a-f]{6}|Traceback|Error\b|\.py\b|[Pp]illow|PIL|numpy|object at"
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def error(self) -> str:
        """Return the sentence of an answer that is an error, which says nothing about the host."""
        assert self.headers["content-type"] == "application/json"
        contents: dict[str, str] = json.loads(self.body)
        assert list(contents) == ["error"]
        assert contents["error"].isprintable()
        assert not HOST.search(contents["error"]), contents["error"]
        return contents["error"]


def connect(url: str, *, timeout: float = PATIENCE_S) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname == "127.0.0.1"
    return socket.create_connection((parts.hostname, parts.port or 80), timeout)


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    """Return a request with its length in the headers, unless these are about it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(path: str, *headers: str) -> bytes:
    return request(path, b"", *headers, method="GET")


def talk(url: str, *parts: bytes, answers: int | None = 1, pause: float = 0) -> list[Answer]:
    """Send parts, and return what comes back.

    Args:
        answers: after which the connection is closed; None: the server closes it.
        pause: between the parts, in seconds.
    """
    with connect(url) as client:
        sender = Thread(target=_send, args=(client, parts, pause), daemon=True)
        sender.start()
        found = read(client, answers)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        sender.join(PATIENCE_S)
    return found


def ask(url: str, *parts: bytes, pause: float = 0) -> Answer:
    (answer,) = talk(url, *parts, pause=pause)
    return answer


def _send(client: socket.socket, parts: Iterable[bytes], pause: float) -> None:
    with suppress(OSError):  # the server may have had enough
        for number, part in enumerate(parts):
            if number and pause:
                time.sleep(pause)
            client.sendall(part)


def read(client: socket.socket, answers: int | None = None) -> list[Answer]:
    """Read answers, as many as that or all until the server closes."""
    data, found = b"", list[Answer]()
    while answers is None or len(found) < answers:
        try:
            more = client.recv(1 << 20)
        except ConnectionResetError:
            more = b""
        data += more
        data, complete = _split(data)
        found += complete
        if not more:
            assert not data, f"an answer ends early: {data[:200]!r}"
            break
    return found


def _split(data: bytes) -> tuple[bytes, list[Answer]]:
    """Return what follows the last whole answer, and the answers."""
    found = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            break
        data = rest[length:]
        found.append(Answer(int(first.split()[1]), headers, rest[:length]))
    return data, found


def metrics(url: str) -> dict[str, float]:
    """Return what /metrics says, by the name of the sample and its labels as Prometheus writes them."""
    lines = ask(url, get("/metrics")).body.decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def at_rest(url: str) -> dict[str, float]:
    """Wait until the server holds nothing of anyone, and return its metrics."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = metrics(url)
        held = {name: found[f"classifier_{name}"] for name in ("held_bytes", "queue_images", "connections")}
        if held["held_bytes"] == held["queue_images"] == 0 and held["connections"] <= 1:
            return found
        assert time.monotonic() < deadline, held
        time.sleep(0.02)


def failures(found: dict[str, float]) -> dict[str, float]:
    """Return the requests that the server failed on."""
    return {name: count for name, count in found.items() if re.search('_requests_total.*status="500"', name) and count}


def infer(pixels: bytes = bytes(16), **others: Any) -> bytes:
    """Return a request for the label of 4 x 4 pixels, in JSON."""
    one = {"name": "images", "datatype": "UINT8", "shape": [1, 4, 4, 1], "data": list(pixels)}
    return json.dumps({"inputs": [one], **others}).encode()
