"""uvicorn's server, which looks after its connections, and stops when all that it has accepted is answered.

uvicorn closes connections at a signal, and what was on its way on them is lost.
"""

import asyncio
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn

from serving.server.app import App
from serving.server.connection import Connection
from serving.server.limits import Limits
from serving.server.service import Service

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EACH_S = 0.02  # is looked whether all are gone


class Server(uvicorn.Server):
    """Serves until a signal comes; a second one ends it at once."""

    def __init__(self, app: App, service: Service, limits: Limits) -> None:
        protocol = type("Connection", (Connection,), {"limits": limits, "metrics": service.metrics})
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=int(limits.idle_s),
            )
        )
        self._service, self._limits = service, limits

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, and then end as a program that has done its work; uvicorn would raise the signal again."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002
        self.force_exit = self.should_exit
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        self._look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.stopping = True
        loop = asyncio.get_running_loop()
        started = loop.time()
        end = started + self._limits.stop_s
        # Closing would end the connections that the system has accepted and that have not been taken on yet.
        while _arrived(*(sockets or ())) and not self.force_exit and loop.time() < end:
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for listening in sockets or ():
            listening.close()
        while self._connections() and not self.force_exit and loop.time() < end:
            for connection in self._connections():
                connection.shutdown()
                # Idle, and not only because the event loop has not yet come to read what is there.
                late = loop.time() > started + self._limits.drain_s
                if late and connection.idle and not _arrived(connection.transport.get_extra_info("socket")):
                    connection.transport.close()
            self._look()
            await asyncio.sleep(EACH_S)
        for connection in self._connections():
            connection.transport.abort()

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.look(now)
        metrics = self._service.metrics
        metrics.connections = len(self.server_state.connections)
        metrics.buffered = sum(one.buffered for one in self._connections())

    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self.server_state.connections))


def _arrived(*sockets: socket.socket) -> bool:
    """Whether a connection, or bytes on one, wait to be taken."""
    arrivals = select.poll()
    for one in sockets:
        arrivals.register(one, select.POLLIN)
    return bool(arrivals.poll(0))
