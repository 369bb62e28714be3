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
        await self._let_in(sockets or [])
        for server in self.servers:
            server.close()
        for listening in sockets or ():
            listening.close()
        loop = asyncio.get_running_loop()
        started = loop.time()
        while self._connections() and not self.force_exit and loop.time() < started + self._limits.stop_s:
            for connection in self._connections():
                connection.shutdown()
                if connection.idle and loop.time() > started + self._limits.drain_s:
                    connection.transport.close()
            self._look()
            await asyncio.sleep(EACH_S)
        for connection in self._connections():
            connection.transport.abort()

    async def _let_in(self, sockets: list[socket.socket]) -> None:
        """Take on those whose connections the system has accepted already: closing would end them."""
        loop, arrivals = asyncio.get_running_loop(), select.poll()
        for listening in sockets:
            arrivals.register(listening, select.POLLIN)
        end = loop.time() + self._limits.drain_s  # or others would come for ever
        while arrivals.poll(0) and loop.time() < end:
            await asyncio.sleep(0)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.look(now)
        metrics = self._service.metrics
        metrics.connections = len(self.server_state.connections)
        metrics.unread = sum(one.transport.get_write_buffer_size() for one in self._connections())

    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self.server_state.connections))
