"""What may come over a connection instead of a request ends in time and in one sentence, and harms nobody else."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from serving.server.connection import Connection
from serving.server.limits import Limits
from serving.server.metrics import Metrics
from tests.support.server import Running
from tests.support.wire import INFER, ask, at_rest, connect, get, infer, metrics, read, request, talk

LIMITS = {"header_s": 0.4, "body_s": 0.8, "connections": 64}
CHUNKED = "Transfer-Encoding: chunked"
WHOLE = request(INFER, infer())
HEAD = 32_768
SLOW_S = 3  # until an attack is over, on a busy machine


def error(url: str, *parts: bytes, pause: float = 0) -> tuple[int, str]:
    """Return the answer to an attack, after which the server closes."""
    began = time.monotonic()
    (answer,) = talk(url, *parts, answers=None, pause=pause)
    assert answer.headers["connection"] == "close"
    assert time.monotonic() - began < SLOW_S
    return answer.status, answer.error


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 6000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 30_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 100_000 + b": b\r\n\r\n",
    ],
    ids=["address", "many", "many empty ones", "one", "one name"],
)
@pytest.mark.parametrize("end", [None, -2], ids=["whole", "endless"])
def test_large_headers_are_refused(unharmed: str, head: bytes, end: int | None) -> None:
    parts = [head[start : start + 8192] for start in range(0, len(head), 8192)]
    parts[-1] = parts[-1][:end]
    assert error(unharmed, *parts, pause=0.002) == (431, "the headers have more than 32,768 bytes")


@pytest.mark.parametrize("before", [get("/v2"), WHOLE], ids=["without a body", "with one"])
@pytest.mark.parametrize("cut", [None, 40_000], ids=["whole", "in two"])
def test_so_are_those_that_come_together_with_the_request_before_them(
    unharmed: str, before: bytes, cut: int | None
) -> None:
    data = before + get("/v2", *["a: b"] * 8000)
    parts = [data] if cut is None else [data[:cut], data[cut:]]
    answered, refused = talk(unharmed, *parts, answers=None, pause=0.1)
    assert (answered.status, refused.status) == (200, 431)


@pytest.mark.parametrize("pieces", [1, 2, 5, 50])
def test_headers_up_to_the_limit_are_taken_however_they_are_cut(unharmed: str, pieces: int) -> None:
    fields = b"".join(b"name-%03d: %s\r\n" % (number, b"v" * 300) for number in range(95))
    head = b"GET /v2 HTTP/1.1\r\n" + fields + b"\r\n"
    assert 0.9 * HEAD < len(head) < HEAD
    size = len(head) // pieces + 1
    parts = [head[start : start + size] for start in range(0, len(head), size)]
    assert ask(unharmed, *parts, pause=0.002).status == 200


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"\r\n"] * 30,
        [b"GET /v2 HTTP/1.1\r\n", *[b"a: b\r\n"] * 20],
        [bytes([byte]) for byte in b"GET /v2 HTTP/1.1\r\nHost: a\r\nUser-Agent: trickle"],
        [request(INFER, b"", "Content-Length: 1000"), *[b"a"] * 30],
        [request(INFER, b"", "Content-Length: 1000")],
        [request(INFER, b"", CHUNKED), *[b"1\r\na\r\n"] * 30],
        [request(INFER, b"", CHUNKED), b"5\r\nab"],
        [request(INFER, infer()[:-1], f"Content-Length: {len(infer())}")],
    ],
    ids=[
        "nothing",
        "empty lines",
        "headers",
        "bytes",
        "body",
        "no body",
        "chunks",
        "half a chunk",
        "one byte less than it says",
    ],
)
def test_what_does_not_arrive_in_time_is_refused(unharmed: str, parts: list[bytes]) -> None:
    assert error(unharmed, *parts, pause=0.05) == (408, "the request did not arrive in time")


def test_a_half_request_that_came_together_with_a_whole_one_is_given_no_more_time_than_another(unharmed: str) -> None:
    first, second = talk(unharmed, get("/v2") + b"GET /v2 HT", answers=None)
    assert (first.status, second.status) == (200, 408)


@pytest.mark.parametrize(
    ("start", "more"),
    [(b"1\r\na\r\n0\r\nX: ", b"a"), (b"1\r\na\r\n0\r\n", b"X: a\r\n"), (b"1;", b"a")],
    ids=["trailer", "trailers", "chunk extension"],
)
def test_what_surrounds_a_body_without_an_end_is_refused_before_it_takes_memory(
    unharmed: str, start: bytes, more: bytes
) -> None:
    parts = [more * (65_536 // len(more))] * 1600  # 100 MiB
    assert error(unharmed, request(INFER, start, CHUNKED), *parts) == (431, "the headers have more than 32,768 bytes")


@pytest.mark.parametrize("before", [0, 2], ids=["alone", "after others"])
def test_long_trailers_in_one_piece_with_their_body_are_refused(unharmed: str, before: int) -> None:
    body = b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(infer()), infer(), b"a: b\r\n" * 8000)
    *answered, refused = talk(unharmed, WHOLE * before + request(INFER, body, CHUNKED), answers=None)
    assert [answer.status for answer in answered] == [200] * before
    assert (refused.status, refused.error) == (431, "the headers have more than 32,768 bytes")


def test_trailers_are_no_headers(unharmed: str) -> None:
    body = b"%x\r\n%s\r\n0\r\nInference-Header-Content-Length: 0\r\n\r\n" % (len(infer()), infer())
    assert ask(unharmed, request(INFER, body, CHUNKED)).status == 200


def test_a_body_of_many_small_chunks_is_a_body(unharmed: str) -> None:
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in infer(id="a" * 20_000)) + b"0\r\n\r\n"
    assert ask(unharmed, request(INFER, body, CHUNKED)).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(200),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 100,
        b"\r\n\r\nHELO localhost\r\n",
        b"GET /v2 HTTP/3.7\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n a: b\r\n\r\n",
        b"GET /v2 HTTP/1.1\nHost: a\n\n",
        request(INFER, b"", "Content-Length: -5"),
        request(INFER, b"", "Content-Length: +5"),
        request(INFER, b"", "Content-Length: "),
        request(INFER, b"", "Content-Length: 0x10"),
        request(INFER, b"", "Content-Length: " + "9" * 5000),
        request(INFER, infer(), f"Content-Length: {len(infer())}", f"Content-Length: {len(infer())}"),
        request(INFER, b"0\r\n\r\n", CHUNKED, "Content-Length: 5"),
        request(INFER, b"0\r\n\r\n", "Content-Length: 5", CHUNKED),
        request(INFER, b"0\r\n\r\n", "Transfer-Encoding: chunked, gzip"),
        request(INFER, b"0\r\n\r\n", "Transfer-Encoding: identity"),
        request(INFER, b"0\r\n\r\n", "Transfer-Encoding: xchunked"),
        request(INFER, b"0\r\n\r\n", CHUNKED, "Transfer-Encoding: identity"),
        request(INFER, b"zz\r\na\r\n", CHUNKED),
        request(INFER, b"-1\r\na\r\n", CHUNKED),
        request(INFER, b"f" * 17 + b"\r\na\r\n", CHUNKED),
        request(INFER, b"1\r\naa\r\n0\r\n\r\n", CHUNKED),
        request(INFER, b"1\na\n0\n\n", CHUNKED),
    ],
    ids=lambda data: repr(data)[-24:],
)
def test_what_is_no_http_is_refused_and_what_follows_it_is_not_read(unharmed: str, data: bytes) -> None:
    assert error(unharmed, data + get("/v2")) == (400, "this is no HTTP request")


def test_a_transfer_coding_that_is_not_known_is_said_to_be_so(unharmed: str) -> None:
    answer = ask(unharmed, request(INFER, b"0\r\n\r\n", "Transfer-Encoding: gzip, chunked"))
    assert (answer.status, answer.error) == (
        501,
        "transfer-encoding is 'gzip, chunked'; chunked alone is understood",
    )


def test_bytes_beyond_the_length_of_a_body_are_another_request(unharmed: str) -> None:
    first, second = talk(unharmed, request(INFER, infer() + b"too long", f"Content-Length: {len(infer())}"), answers=2)
    assert (first.status, second.status, second.error) == (200, 400, "this is no HTTP request")


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (WHOLE, [200]),
        (WHOLE * 20, [200] * 20),
        (get("/metrics"), [200]),
        (get("/v2") + WHOLE, [200, 200]),
        (WHOLE[:30], [400]),
        (WHOLE[:-3], [400]),
        (WHOLE * 2 + WHOLE[:30], [200, 200, 400]),
        (WHOLE * 2 + WHOLE[:-3], [200, 200, 400]),
        (request(INFER, b"a", f"Content-Length: {2**40}"), [413]),
    ],
    ids=range(10),
)
def test_a_client_that_says_that_it_sends_nothing_more_gets_its_answers_and_then_the_end(
    unharmed: str, sent: bytes, statuses: list[int]
) -> None:
    began = time.monotonic()
    with connect(unharmed) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answers = read(client)
    assert [answer.status for answer in answers] == statuses
    assert [answer.error for answer in answers if answer.status == 400] == ["the request ends early"] * (
        400 in statuses
    )
    assert time.monotonic() - began < SLOW_S


def test_one_that_sends_nothing_more_and_does_not_read_is_cut_off(unharmed: str) -> None:
    with connect(unharmed) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request(INFER, infer(id="a" * 4_000_000)) * 3)
        client.shutdown(socket.SHUT_WR)
        at_rest(unharmed)


def test_it_is_no_proxy(unharmed: str) -> None:
    assert error(unharmed, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + WHOLE) == (405, "this is no proxy")
    assert ask(unharmed, b"GET http://example.com/v2 HTTP/1.1\r\nHost: example.com\r\n\r\n").status == 200, "its own"


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.3"])
@pytest.mark.parametrize("cut", [None, 120, 400], ids=["whole", "in the headers", "in the body"])
def test_an_offer_to_speak_another_protocol_is_not_taken_and_the_request_is_answered(
    unharmed: str, protocol: str, cut: int | None
) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    data = request(INFER, infer(id="a" * 400), *offer) + get("/v2", *offer) + get("/v2/health/live")
    answers = talk(unharmed, data[:cut], data[cut or len(data) :], answers=3, pause=0.05)
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert b'"id":"aaa' in answers[0].body
    assert answers[2].body == b'{"live":true}'


def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(unharmed: str) -> None:
    go_on, answer = talk(
        unharmed,
        request(INFER, b"", "Expect: 100-continue", f"Content-Length: {len(infer())}"),
        infer(),
        answers=2,
        pause=0.1,
    )
    assert (go_on.status, answer.status) == (100, 200)


@pytest.mark.parametrize("body", [b"", get("/v2")], ids=["not sent", "sent all the same"])
def test_one_that_asks_and_is_refused_may_send_its_body_or_not_and_it_is_not_taken_for_a_request(
    unharmed: str, body: bytes
) -> None:
    head = request(INFER, b"", "Expect: 100-continue", f"Content-Length: {2**40}")
    assert error(unharmed, head + body) == (413, "the body has more than 67,108,864 bytes")


def test_what_a_refused_request_still_sends_is_thrown_away_and_the_next_one_answered(unharmed: str) -> None:
    first, second = talk(unharmed, request("/predict", b"a" * (17 << 20)), WHOLE, answers=2)
    assert (first.status, second.status) == (413, 200)


@pytest.mark.parametrize("path", [INFER, "/v2"])
def test_a_body_that_nobody_needs_and_that_does_not_end_gets_no_second_answer(unharmed: str, path: str) -> None:
    (answer,) = talk(unharmed, request(path, b"a" * 1000, f"Content-Length: {2**40}"), answers=None)
    assert answer.status in (405, 413)


@pytest.mark.parametrize(
    "last", [b"garbage\r\n\r\n", b"GET http://[/ HTTP/1.1\r\n\r\n", request(INFER, b"zz", CHUNKED)]
)
def test_the_answers_to_the_requests_before_one_that_is_refused_are_not_lost(unharmed: str, last: bytes) -> None:
    for wholes in (1, 3):
        answers = talk(unharmed, WHOLE * wholes + last, answers=None)
        assert [answer.status for answer in answers] == [200] * wholes + [400]


def test_requests_are_answered_in_order_though_nobody_waits_for_the_answers(unharmed: str) -> None:
    answers = talk(unharmed, b"".join(request(INFER, infer(id=str(number))) for number in range(60)), answers=60)
    assert [answer.status for answer in answers] == [200] * 60
    assert all(b'"id":"%d"' % number in answer.body for number, answer in enumerate(answers))


def test_more_requests_at_once_than_a_connection_may_have_are_refused_after_those_that_it_may(unharmed: str) -> None:
    *answered, refused = talk(unharmed, WHOLE * 1000, answers=None)
    assert [answer.status for answer in answered] == [200] * 65
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.error == "64 requests of this connection wait already; try again in a second"


def test_a_client_that_does_not_read_its_answers_is_cut_off_and_until_then_they_count(unharmed: str) -> None:
    with connect(unharmed) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(3):  # the first fills what the system holds between the two
            client.sendall(request(INFER, infer(id="a" * 4_000_000)))
        deadline = time.monotonic() + LIMITS["body_s"]
        while metrics(unharmed)["classifier_held_bytes"] < 4_000_000:
            assert time.monotonic() < deadline
        at_rest(unharmed)


def test_a_client_that_reads_slowly_and_goes_on_is_kept(unharmed: str) -> None:
    with connect(unharmed) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
        for _ in range(2):  # the second answer waits until the first is read
            client.sendall(request(INFER, infer(id="a" * 4_000_000)))
        time.sleep(LIMITS["body_s"] / 2)
        assert [len(answer.body) > 4_000_000 for answer in read(client, 2)] == [True, True]
        time.sleep(LIMITS["body_s"])
        client.sendall(WHOLE)
        assert read(client, 1)[0].status == 200


def test_more_connections_than_the_server_takes_are_told_so_and_later_ones_taken(unharmed: str) -> None:
    limit = LIMITS["connections"]
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(unharmed)) for _ in range(int(limit))]
        for client in clients:
            client.sendall(get("/v2/health/live"))
            assert read(client, 1)[0].status == 200
        for _ in range(3):
            (refused,) = talk(unharmed, answers=None)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.error == "as many connections as the server takes; try again in a second"
        clients[0].sendall(WHOLE)
        assert read(clients[0], 1)[0].status == 200
    at_rest(unharmed)
    assert ask(unharmed, WHOLE).status == 200


def test_refusals_of_a_connection_are_counted(unharmed: str) -> None:
    name = 'classifier_requests_total{route="connection",status="400"}'
    before = metrics(unharmed).get(name, 0)
    error(unharmed, b"garbage\r\n\r\n")
    assert metrics(unharmed)[name] == before + 1


@pytest.mark.parametrize(
    "path",
    [
        "/%00",
        "/%ff%fe",
        "/v2/models/%00",
        "/v2/models/%F0%9F%98%80",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//v2",
        "/v2/",
        "/?a=%00",
        "*",
    ],
)
def test_a_path_that_leads_nowhere_is_not_found(unharmed: str, path: str) -> None:
    for host in ("Host: a", "Host: [", "Host: a/b?c#d"):
        answer = ask(unharmed, f"GET {path} HTTP/1.1\r\n{host}\r\n\r\n".encode())
        if path != "/?a=%00":
            assert (answer.status, bool(answer.error)) == (404, True)


@pytest.mark.parametrize("wanted", ["bytes=abc", "bytes=9999999-", "bytes=0-,0-,0-,0-", "lines=1-2"])
def test_a_part_of_a_file_is_not_given_but_all_of_it(unharmed: str, wanted: str) -> None:
    whole = ask(unharmed, get("/openapi.json"))
    assert ask(unharmed, get("/openapi.json", f"Range: {wanted}")).body == whole.body


printable = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
NAMES = ["content-type", "content-encoding", "accept-encoding", "inference-header-content-length", "authorization"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from([*NAMES, "host", "connection", "expect", "upgrade", "x"]), printable), st.booleans()
)
def test_whatever_headers_say_is_answered(unharmed: str, headers: dict[str, str], upload: bool) -> None:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    answers = talk(unharmed, request("/predict" if upload else INFER, infer(), *lines), answers=1)
    if answers[0].status == 100:
        return
    assert answers[0].status in (200, 400, 413, 415)
    assert answers[0].status == 200 or answers[0].error


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(WHOLE)), st.binary(max_size=6), st.integers(0, 3))
def test_whatever_bytes_a_request_is_spoilt_with_are_answered(
    unharmed: str, place: int, bytes_: bytes, removed: int
) -> None:
    data = WHOLE[:place] + bytes_ + WHOLE[place + removed :]
    with connect(unharmed) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        for answer in read(client):
            assert answer.status < 500 or answer.status == 501
            assert answer.status < 300 or answer.error


def test_they_were_all_one_server(hurried: Running) -> None:
    assert hurried.process.poll() is None
    assert [line for line in hurried.log.read_text().splitlines() if not line.startswith("serve: ")] == []


class Wire(asyncio.Transport):
    """Between a connection and a client that is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.closing, self.aborted = True, False, False
        self.written = b""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborted = True


@contextmanager
def connected(app: ASGIApp) -> Iterator[tuple[Connection, Wire]]:
    """A connection without a server."""
    config = Config(app, http=Connection, ws="none", lifespan="off", log_level="critical")
    config.load()
    connection, wire = Connection(config, ServerState(), {}), Wire()
    connection.limits, connection.metrics = Limits(), Metrics()
    connection.connection_made(wire)
    yield connection, wire


def test_nothing_more_is_read_while_a_request_waits_for_the_one_before_it() -> None:
    async def play() -> None:
        answer = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await answer.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        with connected(app) as (connection, wire):
            connection.data_received(WHOLE + WHOLE)
            await asyncio.sleep(0.01)
            assert not wire.reading, "though the first was received"
            answer.set()
            await asyncio.sleep(0.01)
            assert (wire.reading, wire.written.count(b"HTTP/1.1 200 OK")) == (True, 2)

    asyncio.run(play())


def test_the_last_answer_may_be_read_for_as_long_as_any_other() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def play() -> None:
        with connected(app) as (connection, wire):
            now = asyncio.get_running_loop().time()
            wire.close()
            for later, aborted in ((0, False), (Limits.body_s - 1, False), (Limits.body_s + 1, True)):
                connection.look(now + later)
                assert wire.aborted == aborted

    asyncio.run(play())
