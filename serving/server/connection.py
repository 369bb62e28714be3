"""uvicorn's HTTP connection, with an end to everything that a client may draw out, and errors in JSON.

uvicorn takes headers of any size, any number of requests at once, and waits for ever for headers and bodies that do not
end and for clients that do not read.
"""

import asyncio
from collections.abc import Collection
from math import inf

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.server.limits import Limits
from serving.server.metrics import Metrics
from serving.server.refusal import JSON, Refusal, busy

LINGER_S = 2  # that a client has to read why it was refused, while what it still sends is thrown away
AROUND_HEADER = 4  # bytes: a colon, a space and the end of the line


class Connection(HttpToolsProtocol):
    """One connection; `Server` calls `look` now and then."""

    limits: Limits
    metrics: Metrics

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self.running: RequestResponseCycle | None = None
        self.refusal: Refusal | None = None
        self.stopping = False
        self.receiving = self.in_head = False  # a request, and its headers
        self.silent = 0  # bytes since the last read with some of a body or the end of a request in it: headers, or
        # what surrounds chunks. Those of this read, and of that one, in which headers may have followed:
        self.read = self.mixed = 0
        # By the loop's clock: when the request has to be here that is being received, when what was written has to
        # have been read, and when there is no more waiting for the client.
        self.due, self.write_due, self.gone = self.loop.time() + self.limits.header_s, inf, inf
        if len(self.connections) > self.limits.connections:
            self.refuse(busy("as many connections as the server takes"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.running:  # uvicorn tells the last request alone
            self.running.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.refusal:
            return
        if self.due == inf:
            self.due = self.loop.time() + self.limits.header_s
        self._unset_keepalive_if_required()
        self.read = len(data)
        self.silent += self.read
        self._feed(data)
        if self.silent > self.limits.header:
            self._refuse_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what is here all the same: a client that sends nothing more, as `nc -N`, may still read.

        Returns:
            whether there are answers to wait for; after the last one the connection is closed.
        """
        if self.receiving:
            self.refuse(Refusal(400, "the request ends early"))
        elif self.answering:
            self.cycle.keep_alive = False
        return self.answering and not self.cycle.disconnected

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if not self.refusal:
                self._feed(self._without_upgrade() + data[upgrade.args[0] :])
        except HttpParserError:
            self.refuse(Refusal(400, "this is no HTTP request"))

    def _without_upgrade(self) -> bytes:
        """Return the headers without the offer to speak another protocol, after which httptools reads no body.

        Java's client makes that offer (h2c) with each request.
        """
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"%s %s HTTP/1.1\r\n%s\r\n" % (self.scope["method"].encode(), self.url, b"".join(lines))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.receiving = self.in_head = True
        if self.due == inf:  # it came together with the request before it
            self.due = self.loop.time() + self.limits.header_s

    def on_headers_complete(self) -> None:
        if self.refusal:
            return
        if self._too_long(len(self.url)):
            self._refuse_head()
            return
        if self.parser.should_upgrade():
            self._offered()
            return
        if len(self.pipeline) >= self.limits.pipelined:
            self.refuse(busy(f"{self.limits.pipelined} requests of this connection wait already"))
            return
        self.due = self.loop.time() + self.limits.body_s
        before = self.cycle
        super().on_headers_complete()
        self.in_head = False
        self.headers = []  # where the parser puts what it finds after a body in chunks: those are no headers
        if self.expect_100_continue:  # whoever is refused may send the body or not: what comes next would be a guess
            self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]
        if self.stopping:
            self.cycle.keep_alive = False
            if before and not before.response_complete:
                before.keep_alive = True  # or the answer to this request, which follows it, would be lost

    def _offered(self) -> None:
        self.scope["method"] = self.parser.get_method().decode()
        if self.scope["method"] == "CONNECT":
            self.refuse(Refusal(405, "this is no proxy"))

    def on_body(self, body: bytes) -> None:
        self.silent, self.mixed = 0, self.read
        if not self.refusal:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.headers and self._too_long():  # of trailers
            self._refuse_head()
        self.silent, self.mixed = 0, self.read
        if self.in_head:  # it is read once more, as one that does not offer another protocol
            return
        self.receiving = False
        self.due = inf
        if not self.refusal:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if last and self.refusal:
            self._tell(self.refusal)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_due = self.loop.time() + self.limits.body_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_due = inf

    def shutdown(self) -> None:
        """Close after the answer to what is being received, or was: nothing that was accepted is lost."""
        self.stopping = True
        if self.answering and not self.pipeline and (self.in_body or not self.receiving):
            self.cycle.keep_alive = False

    @property
    def answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def in_body(self) -> bool:
        return self.receiving and not self.in_head

    @property
    def buffered(self) -> int:
        """Bytes of answers that the client has not read, and of bodies that wait for the request before them."""
        return self.transport.get_write_buffer_size() + sum(len(cycle.body) for cycle, _ in self.pipeline)

    @property
    def idle(self) -> bool:
        return not (self.receiving or self.answering)

    def look(self, now: float) -> None:
        """End what has taken too long."""
        if self.transport.is_closing():  # as soon as the client has read the answer
            self.gone = min(self.gone, now + self.limits.body_s)
        if now > min(self.gone, self.write_due):
            self.transport.abort()
        elif now > self.due and not self.flow.read_paused and not self.refusal:
            self.refuse(Refusal(408, "the request did not arrive in time"))

    def refuse(self, refusal: Refusal) -> None:
        """Answer what is being received with an error, after the answers to the requests before it, and close."""
        if self.refusal or self.transport.is_closing():
            return
        self.refusal = refusal
        if not self.answering:
            if self.in_body:  # its answer was given, and did not need it
                self.transport.close()
            else:
                self._tell(refusal)
        elif self.in_body and self.pipeline:
            self.pipeline.popleft()  # the one that is being received, which was put there last
        elif self.in_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
            else:
                self._tell(refusal)

    def _tell(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        self.gone = self.loop.time() + LINGER_S
        self.metrics.requests["connection", refusal.status] += 1
        headers = (JSON, (b"content-length", b"%d" % len(refusal.body)), (b"connection", b"close"), *refusal.headers)
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[refusal.status] + lines + b"\r\n" + refusal.body)
        # Closed at once, what the client still sends would have the system take the answer back.
        self.transport.write_eof()

    def _too_long(self, address: int = 0) -> bool:
        """Whether headers, or trailers, have more bytes than they may; added up only where so many have come."""
        if self.silent + self.mixed <= self.limits.header:
            return False
        fields = sum(len(name) + len(value) + AROUND_HEADER for name, value in self.headers)
        return address + fields > self.limits.header

    def _refuse_head(self) -> None:
        self.refuse(Refusal(431, f"the headers have more than {self.limits.header:,} bytes"))


class _Flow(FlowControl):
    """Reads on only when no request waits for those before it: uvicorn would, each time that one is answered."""

    def __init__(self, transport: asyncio.Transport, pipeline: Collection[object]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if self.read_paused and not self._pipeline:
            super().resume_reading()
