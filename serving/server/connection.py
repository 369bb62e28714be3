"""uvicorn's HTTP connection, with an end to everything that a client may draw out, and errors in JSON.

uvicorn takes headers of any size, and waits for ever for headers and bodies that do not end and for clients that do not
read.
"""

import asyncio
from math import inf

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.server.limits import Limits
from serving.server.refusal import JSON, Refusal, busy

LINGER_S = 2  # that a client has to read why it was refused, while what it still sends is thrown away


class Connection(HttpToolsProtocol):
    """One connection; `Server` calls `look` now and then."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.refusal: Refusal | None = None
        self.stopping = False
        self.head = 0  # bytes of the headers that are being received
        self.in_head = False
        # By the loop's clock: when the request has to be here that is being received, when what was written has to
        # have been read, and when there is no more waiting for the client.
        self.due, self.write_due, self.gone = self.loop.time() + self.limits.header_s, inf, inf
        if len(self.connections) > self.limits.connections:
            self.refuse(busy("as many connections as the server takes"))

    def data_received(self, data: bytes) -> None:
        if self.refusal:
            return
        if self.due == inf:
            self.due = self.loop.time() + self.limits.header_s
        if self.in_head:  # of a header that has not ended the parser says nothing
            self._count(len(data))
        if not self.refusal:
            super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_head, self.head = True, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.refusal:
            return
        self.due = self.loop.time() + self.limits.body_s
        before = self.cycle
        super().on_headers_complete()
        if self.stopping:
            self.cycle.keep_alive = False
            if before and not before.response_complete:
                before.keep_alive = True  # or the answer to this request, which follows it, would be lost

    def on_body(self, body: bytes) -> None:
        if not self.refusal:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.due = inf
        if not self.refusal:
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_due = self.loop.time() + self.limits.body_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_due = inf

    def shutdown(self) -> None:
        """Close after the answer to what is being received, or was: nothing that was accepted is lost."""
        self.stopping = True
        if self.cycle and not self.cycle.response_complete and not self.pipeline:
            self.cycle.keep_alive = False

    @property
    def idle(self) -> bool:
        return self.due == inf and (self.cycle is None or self.cycle.response_complete)

    def look(self, now: float) -> None:
        """End what has taken too long."""
        if self.transport.is_closing():
            self.gone = min(self.gone, now + LINGER_S)
        if now > min(self.gone, self.write_due):
            self.transport.abort()
        elif now > self.due and not self.flow.read_paused and not self.refusal:
            self.refuse(Refusal(408, "the request did not arrive in time"))

    def send_400_response(self, msg: str) -> None:
        self.refuse(Refusal(400, msg))

    def refuse(self, refusal: Refusal) -> None:
        """Answer at once, and close as soon as the client has read it."""
        if self.refusal or self.transport.is_closing():
            return
        self.refusal, self.gone = refusal, self.loop.time() + LINGER_S
        if self.cycle and not self.cycle.response_complete:
            if self.cycle.response_started or self.pipeline:  # there is no place for another answer
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        headers = (JSON, (b"content-length", b"%d" % len(refusal.body)), (b"connection", b"close"), *refusal.headers)
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[refusal.status] + lines + b"\r\n" + refusal.body)
        # Closed at once, what the client still sends would have the system take the answer back.
        self.transport.write_eof()

    def _count(self, size: int) -> None:
        self.head += size
        if self.head > self.limits.header:
            self.refuse(Refusal(431, f"the headers have more than {self.limits.header:,} bytes"))
