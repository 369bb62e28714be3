"""The body of a request: bounded before it is received, and again where it is unpacked."""

import asyncio
import zlib

from starlette.types import Receive

from serving.server.limits import Limits
from serving.server.metrics import Metrics
from serving.server.refusal import Refusal, busy

Headers = dict[bytes, bytes]
IDENTITY = b"identity"
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # deflate: zlib's format, as RFC 9110 has it


class Disconnected(Exception):
    """The client is gone; nobody waits for an answer."""


def reserve(headers: Headers, limits: Limits, metrics: Metrics, most: int) -> int:
    """Set aside the bytes of a body before it is received, and return how many: whoever gets them gives them back.

    Args:
        most: bytes, packed or not.

    Raises:
        Refusal: its length is not said, it is too long, or the server holds as much as it can.
    """
    length = _length(headers, most)
    # Of what comes in chunks, or packed, the whole that it may become is set aside.
    reserved = most if length is None or _encoding(headers) != IDENTITY else length
    if metrics.held and metrics.held + reserved > limits.held:
        raise busy("the server holds as many requests as it can")
    metrics.held += reserved
    return reserved


async def receive_all(receive: Receive, headers: Headers, most: int) -> bytes:
    """Receive a body, and unpack it.

    Raises:
        Refusal: it is too long, or not packed as its headers say.
        Disconnected: it ends early.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message["body"])
        size += len(message["body"])
        if size > most:
            raise _too_long(most)
        if not message["more_body"]:
            break
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    if (encoding := _encoding(headers)) != IDENTITY:
        return await asyncio.to_thread(_unpacked, body, encoding, most)
    return body


def _encoding(headers: Headers) -> bytes:
    encoding = headers.get(b"content-encoding", IDENTITY).strip().lower()
    if encoding not in (IDENTITY, *WINDOW_BITS):
        raise Refusal(415, f"content-encoding is {encoding[:40].decode('latin-1')!r}; gzip or deflate can be unpacked")
    return encoding


def _length(headers: Headers, most: int) -> int | None:
    """Return how long a body will be; None: it comes in chunks."""
    if b"transfer-encoding" in headers:
        return None
    text = headers.get(b"content-length")
    if text is None:
        raise Refusal(411, "the request has no body: neither Content-Length nor Transfer-Encoding: chunked")
    # It is a number, since the connection has parsed it; one of more digits than this is not worth an int.
    if len(text) > 18 or int(text) > most:
        raise _too_long(most)
    return int(text)


def _unpacked(body: bytes, encoding: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(400, f"the body is not {encoding.decode()}: {error}") from None
    if len(found) > most:
        raise _too_long(most)
    if not unpacker.eof:
        raise Refusal(400, f"the body ends before its {encoding.decode()} data do")
    if unpacker.unused_data:
        raise Refusal(400, f"{len(unpacker.unused_data)} bytes follow the {encoding.decode()} data of the body")
    return found


def _too_long(most: int) -> Refusal:
    return Refusal(413, f"the body has more than {most:,} bytes")
