"""The body of a request: bounded before it is received, while it is, and again where it is unpacked."""

import asyncio
import zlib
from typing import Self

from starlette.types import Receive

from serving.server.limits import Limits
from serving.server.metrics import Metrics
from serving.server.refusal import Refusal, busy

Headers = dict[bytes, bytes]
IDENTITY = b"identity"
STEP = 2**20  # bytes that are unpacked at a time
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # deflate: zlib's format, as RFC 9110 has it


class Disconnected(Exception):
    """The client is gone; nobody waits for an answer."""


class Held:
    """The bytes of one request, counted as they come, until it is answered: what is announced takes no room."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.held -= self.bytes

    def add(self, size: int) -> None:
        """Hold more bytes.

        Raises:
            Refusal: the server holds as much as it can.
        """
        metrics = self._metrics
        held = metrics.held + metrics.buffered
        if held > self.bytes and held + size > self._limits.held:  # one request alone may be of any size
            raise busy("the server holds as many requests as it can")
        self.bytes += size
        metrics.held += size


async def receive_all(receive: Receive, headers: Headers, held: Held, most: int) -> bytes:
    """Receive a body, and unpack it.

    Args:
        most: bytes, packed or not.

    Raises:
        Refusal: its length is not said, it is too long, or not packed as its headers say; or the server holds as much
            as it can.
        Disconnected: it ends early.
    """
    encoding = _encoding(headers)
    _check_length(headers, most)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message["body"])
        size += len(message["body"])
        if size > most:
            raise _too_long(most)
        held.add(len(message["body"]))
        more = message["more_body"]
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    return body if encoding == IDENTITY else await _unpacked(body, encoding, held, most)


def _encoding(headers: Headers) -> bytes:
    encoding = headers.get(b"content-encoding", IDENTITY).strip().lower()
    if encoding not in (IDENTITY, *WINDOW_BITS):
        raise Refusal(415, f"content-encoding is {encoding[:40].decode('latin-1')!r}; gzip or deflate can be unpacked")
    return encoding


def _check_length(headers: Headers, most: int) -> None:
    if coding := headers.get(b"transfer-encoding"):
        if coding.strip().lower() != b"chunked":
            raise Refusal(501, f"transfer-encoding is {coding[:40].decode('latin-1')!r}; chunked alone is understood")
        return
    length = headers.get(b"content-length")
    if length is None:
        raise Refusal(411, "the request has no body: neither Content-Length nor Transfer-Encoding: chunked")
    # It is a number, since the connection has parsed it; one of more digits than this is not worth an int.
    if len(length) > 18 or int(length) > most:
        raise _too_long(most)


async def _unpacked(body: bytes, encoding: bytes, held: Held, most: int) -> bytes:
    """Unpack a body step by step, since nobody knows before how much it becomes."""
    unpacker = zlib.decompressobj(WINDOW_BITS[encoding])
    parts: list[bytes] = []
    size, rest = 0, body
    while not unpacker.eof:
        try:
            part = await asyncio.to_thread(unpacker.decompress, rest, STEP)
        except zlib.error as error:
            why = str(error).rpartition(": ")[2]  # after a number of zlib's own
            raise Refusal(400, f"the body is not {encoding.decode()}: {why}") from None
        size += len(part)
        if size > most:
            raise _too_long(most)
        held.add(len(part))
        parts.append(part)
        rest = unpacker.unconsumed_tail
        if not (part or rest or unpacker.eof):
            raise Refusal(400, f"the body ends before its {encoding.decode()} data do")
    if unpacker.unused_data:
        raise Refusal(400, f"{len(unpacker.unused_data)} bytes follow the {encoding.decode()} data of the body")
    return b"".join(parts)


def _too_long(most: int) -> Refusal:
    return Refusal(413, f"the body has more than {most:,} bytes")
