"""At a signal all that was accepted is answered, nobody can draw that out, and a second signal ends it at once."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import cast

import pytest
from PIL import Image

from serving.server.app import App
from serving.server.limits import Limits
from serving.server.metrics import Metrics
from serving.server.server import Server
from serving.server.service import Service
from tests.serving.server.conftest import with_model
from tests.support.params import ROOT
from tests.support.server import Running, running
from tests.support.wire import INFER, Answer, connect, get, infer, metrics, read, request

WHOLE = request(INFER, infer())
MODEL_S = 0.02  # of a batch, so that requests wait
QUICK = {"drain_s": 0.3, "stop_s": 3, "batch": 4, "model_s": MODEL_S}
END_S = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_model(tmp_path)


@contextmanager
def stopping(folder: Path, **limits: float) -> Iterator[Running]:
    """A server that is stopped inside, and ends with 0."""
    with running(folder, limits=QUICK | limits, stopped=True) as server:
        yield server
        assert server.process.wait(END_S) == 0
        lines = server.log.read_text().splitlines()
        assert [line for line in lines if not line.startswith("serve: ")] == []


def stop(server: Running) -> float:
    server.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def status(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


@pytest.mark.parametrize("attempt", range(5))
def test_of_64_requests_in_flight_none_is_lost(folder: Path, attempt: int) -> None:
    with stopping(folder) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server.url)) for _ in range(64)]
        for client in clients[:32]:  # a connection that was used before
            client.sendall(WHOLE)
            assert status(read(client, 1)) == [200]
        for client in clients:
            client.sendall(WHOLE)
        time.sleep(0.01 * attempt)
        stop(server)
        answers = [read(client) for client in clients]
        assert [status(one) for one in answers] == [[200]] * 64
        assert sum(one.headers.get("connection") == "close" for (one,) in answers) > 20, "in flight at the signal"


def test_what_was_sent_together_sent_in_half_and_not_yet_let_in_is_answered(folder: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((2000, 2000), 50).save(file, "PNG")
    upload = request("/predict", file.getvalue(), "Content-Type: image/png")
    with stopping(folder) as server, ExitStack() as stack:

        def client() -> socket.socket:
            return stack.enter_context(connect(server.url))

        pipelined, uploading, half, halves, silent = ([client() for _ in range(4)] for _ in range(5))
        for one in (*half, *halves):
            one.sendall(WHOLE[:40] if one in half else WHOLE + WHOLE[:-3])
        while metrics(server.url)["classifier_connections"] < 20:
            time.sleep(0.01)
        for one in pipelined:
            one.sendall(WHOLE * 20)
        for one in uploading:
            one.sendall(upload)
        late = [client() for _ in range(16)]
        for one in late:
            one.sendall(WHOLE)
        stop(server)
        time.sleep(0.15)
        for one in half:
            one.sendall(WHOLE[40:])
        for one in halves:
            one.sendall(WHOLE[-3:])
        assert [status(read(one)) for one in pipelined] == [[200] * 20] * 4
        assert [status(read(one)) for one in (*uploading, *half, *late)] == [[200]] * 24
        assert [status(read(one)) for one in halves] == [[200, 200]] * 4
        assert [status(read(one)) for one in silent] == [[]] * 4


def test_who_came_while_the_server_was_busy_is_let_in_and_answered(folder: Path) -> None:
    busy = request(INFER, b"[" + b"0," * 2_000_000 + b"0]")  # tenths of a second of the event loop
    with stopping(folder) as server, ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(connect(server.url))
            Thread(target=client.sendall, args=(busy,), daemon=True).start()
        time.sleep(0.05)
        late = [stack.enter_context(connect(server.url)) for _ in range(32)]
        for one in late:
            one.sendall(WHOLE)
        stop(server)
        assert [status(read(one)) for one in late] == [[200]] * 32


class Quiet:
    """A connection as the server sees it, on which nothing has come yet that was read."""

    idle, buffered = True, 0

    def __init__(self, end: socket.socket, connections: set[object]) -> None:
        self.end, self.connections = end, connections
        self.transport = self
        connections.add(self)

    def get_extra_info(self, name: str) -> socket.socket:
        return {"socket": self.end}[name]

    def close(self) -> None:
        self.connections.discard(self)

    def shutdown(self) -> None: ...

    def look(self, now: float) -> None: ...


def test_what_has_come_and_is_not_read_yet_is_not_taken_for_silence() -> None:
    async def play() -> None:
        service = SimpleNamespace(metrics=Metrics(), stopping=False)
        server = Server(cast(App, None), cast(Service, service), Limits(drain_s=0, stop_s=END_S))
        server.servers = []
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"GET")
            Quiet(ours, cast(set[object], server.server_state.connections))
            stopped = asyncio.create_task(server.shutdown())
            await asyncio.sleep(0.1)
            assert not stopped.done(), "the event loop would read it next"
            ours.recv(3)
            await asyncio.wait_for(stopped, 1)

    asyncio.run(play())


def test_clients_that_go_on_asking_lose_nothing_and_are_sent_away(folder: Path) -> None:
    found: list[list[Answer]] = [[] for _ in range(16)]

    def ask_on(url: str, answers: list[Answer]) -> None:
        with connect(url) as client:
            while not answers or answers[-1].headers.get("connection") != "close":
                client.sendall(WHOLE)
                answers += read(client, 1) or [Answer(0, {"connection": "close"}, b"")]

    with stopping(folder) as server:
        threads = [Thread(target=ask_on, args=(server.url, answers), daemon=True) for answers in found]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        stop(server)
        for thread in threads:
            thread.join(END_S)
    assert all(set(status(answers)) == {200} for answers in found)


def test_meanwhile_it_says_that_it_is_not_ready_and_lets_nobody_in(folder: Path) -> None:
    with stopping(folder, model_s=0.4) as server, connect(server.url) as busy, connect(server.url) as asking:
        busy.sendall(WHOLE)
        asking.sendall(get("/v2/health/ready"))
        assert status(read(asking, 1)) == [200]
        began = stop(server)
        time.sleep(0.15)
        asking.sendall(get("/v2/health/ready"))
        (answer,) = read(asking)
        assert (answer.status, answer.body) == (503, b'{"ready":false,"live":true}')
        with pytest.raises(ConnectionRefusedError):
            connect(server.url)
        assert time.monotonic() < began + 0.4
        assert status(read(busy)) == [200]


def test_one_that_asks_again_before_its_answer_came_gets_both(folder: Path) -> None:
    with stopping(folder, model_s=0.4) as server, connect(server.url) as client:
        client.sendall(WHOLE)
        time.sleep(0.05)
        stop(server)
        time.sleep(0.2)
        client.sendall(WHOLE)
        first, second = read(client)
        assert (first.status, second.status, second.headers["connection"]) == (200, 200, "close")


def test_one_that_sends_nothing_more_gets_its_answers(folder: Path) -> None:
    with stopping(folder, model_s=0.2) as server, connect(server.url) as client:
        client.sendall(WHOLE * 3)
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.05)
        stop(server)
        assert status(read(client)) == [200] * 3


def test_idle_connections_are_kept_a_moment_and_then_closed(folder: Path) -> None:
    with stopping(folder) as server, connect(server.url) as used, connect(server.url) as unused:
        used.sendall(WHOLE)
        read(used, 1)
        time.sleep(0.2)
        began = stop(server)
        assert read(used) == read(unused) == []
        assert QUICK["drain_s"] < time.monotonic() - began < QUICK["stop_s"]


@pytest.mark.parametrize(
    "sent",
    [WHOLE[:30], request(INFER, b"a", "Content-Length: 1000"), request(INFER, infer(id="a" * 4_000_000)) * 3],
    ids=["headers", "body", "does not read"],
)
def test_a_client_that_draws_on_is_cut_off(folder: Path, sent: bytes) -> None:
    with stopping(folder, stop_s=0.8) as server, connect(server.url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(1)
        try:
            client.sendall(sent)
        except TimeoutError:  # the server reads no more of it
            assert len(sent) > 1_000_000
        time.sleep(0.1)
        began = stop(server)
        assert server.process.wait(END_S) == 0
        assert 0.7 < time.monotonic() - began < 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(folder: Path, number: signal.Signals) -> None:
    with stopping(folder, model_s=0.2, stop_s=30) as server, ExitStack() as stack:
        for _ in range(200):  # that would take 10 seconds
            stack.enter_context(connect(server.url)).sendall(WHOLE)
        began = stop(server)
        time.sleep(0.2)
        server.process.send_signal(number)
        assert server.process.wait(END_S) == 0
        assert time.monotonic() - began < 3


def test_ctrl_c_before_it_serves_ends_it_without_a_traceback(folder: Path) -> None:
    words = (sys.executable, "-m", "tests.support.limited", json.dumps({"model_s": 0.5}), "--port", "0")
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith(b"serve: there is no champion"), "and so the model is being opened"
        process.send_signal(signal.SIGINT)
        assert (process.stdout.read(), process.wait(END_S)) == (b"", -signal.SIGINT)
