"""Bodies that are not what they say, or more than the server holds, are refused and leave nothing behind."""

import gzip
import json
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.support.wire import INFER, Answer, ask, at_rest, connect, infer, metrics, read, request, talk

MIB = 2**20
LIMITS = {"header_s": 2, "body_s": 2, "json": 4 * MIB, "body": 8 * MIB, "held": 12 * MIB}
CHUNKED = "Transfer-Encoding: chunked"


Packed = Callable[..., Answer]


@pytest.fixture
def url(unharmed: str) -> str:
    return unharmed


@pytest.fixture
def packed(url: str) -> Packed:
    """Ask with a body that is packed."""
    return lambda body, encoding="gzip": ask(url, request(INFER, body, f"Content-Encoding: {encoding}"))


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.error


def test_bodies_may_be_packed(packed: Packed) -> None:
    for encoding in ("gzip", "GZIP", "x-gzip"):
        assert packed(gzip.compress(infer()), encoding).status == 200
    assert packed(zlib.compress(infer()), "deflate").status == 200
    assert packed(infer(), "identity").status == 200


@pytest.mark.parametrize("size", [9 * MIB, 200 * MIB])
def test_a_bomb_is_refused_as_soon_as_it_is_larger_than_a_body_may_be(packed: Packed, size: int) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join([packer.compress(bytes(MIB)) for _ in range(size // MIB)]) + packer.flush()
    began = time.monotonic()
    assert refusal(packed(bomb)) == (413, f"the body has more than {8 * MIB:,} bytes")
    assert time.monotonic() - began < 2


def test_what_is_packed_twice_is_unpacked_once(packed: Packed) -> None:
    status, why = refusal(packed(gzip.compress(gzip.compress(infer()))))
    assert (status, why.startswith("failed to parse the request's JSON: ")) == (400, True)


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (gzip.compress(infer())[:-1], "gzip", "the body ends before its gzip data do"),
        (gzip.compress(infer())[:10], "gzip", "the body ends before its gzip data do"),
        (b"", "gzip", "the body ends before its gzip data do"),
        (gzip.compress(infer()) + b"more", "gzip", "4 bytes follow the gzip data of the body"),
        (gzip.compress(infer()) * 2, "gzip", f"{len(gzip.compress(infer()))} bytes follow the gzip data of the body"),
        (zlib.compress(infer()), "gzip", "the body is not gzip: incorrect header check"),
        (infer(), "deflate", "the body is not deflate: incorrect header check"),
        (gzip.compress(infer())[:-8] + bytes(8), "gzip", "the body is not gzip: incorrect data check"),
    ],
    ids=["last byte", "header alone", "nothing", "more", "twice", "zlib", "plain", "wrong checksum"],
)  # fmt: skip
def test_what_is_not_packed_as_it_says_is_refused(packed: Packed, body: bytes, encoding: str, why: str) -> None:
    assert refusal(packed(body, encoding)) == (400, why)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip, deflate", "", "\xff"])
def test_another_packing_is_refused(packed: Packed, encoding: str) -> None:
    status, why = refusal(packed(gzip.compress(infer()), encoding))
    assert (status, why.endswith("; gzip or deflate can be unpacked")) == (415, True)


def test_many_may_pack_their_bodies_at_once_and_each_takes_the_room_that_it_needs(url: str) -> None:
    large = request(INFER, gzip.compress(infer(id="a" * MIB)), "Content-Encoding: gzip")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(url)) for _ in range(32)]
        for client in clients:
            client.sendall(request(INFER, gzip.compress(infer()), "Content-Encoding: gzip"))
        assert [read(client, 1)[0].status for client in clients] == [200] * 32
        for client in clients[:3]:
            client.sendall(large)
        assert [read(client, 1)[0].status for client in clients[:3]] == [200] * 3


def test_no_body_is_none(url: str) -> None:
    assert refusal(ask(url, f"POST {INFER} HTTP/1.1\r\nHost: a\r\n\r\n".encode())) == (
        411,
        "the request has no body: neither Content-Length nor Transfer-Encoding: chunked",
    )


@pytest.mark.parametrize("length", [str(8 * MIB + 1), "9" * 18, "1" * 19])
def test_a_body_that_is_too_long_is_refused_before_it_comes(url: str, length: str) -> None:
    answer = ask(url, request(INFER, b"", f"Content-Length: {length}"))
    assert refusal(answer) == (413, f"the body has more than {8 * MIB:,} bytes")


@pytest.mark.parametrize("size", [1000, 64 * 1024])
def test_chunks_without_an_end_are_refused_at_the_limit(url: str, size: int) -> None:
    chunk = b"%x\r\n%s\r\n" % (size, bytes(size))
    (answer,) = talk(url, request(INFER, b"", CHUNKED), *[chunk * (256 * 1024 // size)] * 64)
    assert refusal(answer) == (413, f"the body has more than {8 * MIB:,} bytes")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (4 * MIB),
        b'{"a":' * 800_000,
        b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 4, 4, 1], "data": '
        + b"[" * 900
        + b"1"
        + b"]" * 900
        + b"}]}",
        b"1" * 100_000,
        b'"' + b"a" * (4 * MIB - 2) + b'"',
        b"[" + b"0," * (2 * MIB - 2) + b"0]",
        b"{" + b",".join(b'"%d":{}' % number for number in range(300_000)) + b"}",
        b'{"inputs": [NaN, Infinity, -Infinity, 1e999999]}',
        b"\xff\xfe" + "{}".encode("utf-16-le"),
        b"\xef\xbb\xbf{}",
        b"{}" + bytes(100),
        infer(parameters={"timeout": -1}),
        infer(parameters={"timeout": 1e400}),
        infer(id=5),
    ],
    ids=lambda body: repr(body[:12]) + str(len(body)),
)
def test_json_that_is_no_request_is_refused_in_time(packed: Packed, body: bytes) -> None:
    began = time.monotonic()
    status, why = refusal(packed(body, "identity"))
    assert (status, len(why) < 300) == (400, True)
    assert time.monotonic() - began < 2


def test_more_json_than_the_event_loop_would_want_to_read_is_refused(packed: Packed) -> None:
    status, why = refusal(packed(b" " * (4 * MIB + 1), "identity"))
    assert (status, why) == (413, "more than 4,194,304 bytes of JSON; send the images as binary data")


def data(*values: object, **others: object) -> bytes:
    one = {"name": "images", "datatype": "UINT8", "shape": [1, 4, 4, 1], "data": values} | others
    return json.dumps({"inputs": [one]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        data("a" * 100_000, *[""] * 40_000),  # as an array of strings of one length: 16 GB
        data("a" * 1_000_000, *[""] * 15),
        data(*[1] * 15, 10**400),
        data(*[1] * 15, "1"),
        data(*[1] * 15, None),
        data(*[1] * 15, True),
        data(*[1] * 15, 1.0),
        data(*[1] * 15, -1),
        data(*[1] * 15, 256),
        data(*[1] * 15, [1]),
        data(*[1] * 15, {}),
        data(*[[1]] * 15, 1),
        data(*[[1]] * 15, "1"),
        data(*[[1]] * 14, [], [1, 1]),
        data(*[{}] * 16),
        data(*[1] * 16, shape=[int("9" * 4300), 4, 4, 1]),
        data(*[1] * 16, shape=[2**40, 4, 4, 1], data=None),
        data(shape=[2**63, 4, 4, 1], parameters={"binary_data_size": 2**67}),
    ],
    ids=lambda body: repr(body[-24:]),
)  # fmt: skip
def test_data_that_are_no_pixels_are_refused_in_time_and_memory(packed: Packed, body: bytes) -> None:
    began = time.monotonic()
    status, why = refusal(packed(body, "identity"))
    assert (status, len(why) < 300) == (400, True)
    assert time.monotonic() - began < 2


def test_the_last_of_two_equal_names_counts_as_in_all_json_of_this_kind(packed: Packed) -> None:
    body = infer(id="last").replace(b'"id"', b'"id": "first", "id"')
    assert b'"id":"last"' in packed(body, "identity").body


@pytest.mark.parametrize("timeout", [0, 2**64, 10**400, 5_000_000])
def test_a_timeout_may_be_any_number_of_microseconds(packed: Packed, timeout: int) -> None:
    assert packed(infer(parameters={"timeout": timeout}), "identity").status == 200


def test_bodies_that_are_announced_and_do_not_come_keep_nobody_else_out(url: str) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connect(url))
            client.sendall(request(INFER, b"a", f"Content-Length: {8 * MIB}"))
            client = stack.enter_context(connect(url))
            client.sendall(request(INFER, b"1\r\na\r\n", CHUNKED, "Content-Encoding: gzip"))
        time.sleep(0.2)
        assert metrics(url)["classifier_held_bytes"] == 40
        assert ask(url, request(INFER, infer())).status == 200


def test_more_than_the_server_holds_is_told_to_come_again(url: str) -> None:
    large = request(INFER, bytes(7 * MIB), f"Content-Length: {7 * MIB + 1}")
    with connect(url) as first, connect(url) as second:
        first.sendall(large)
        while metrics(url)["classifier_held_bytes"] < 7 * MIB:
            time.sleep(0.01)
        refused = ask(url, large)
        assert refusal(refused) == (503, "the server holds as many requests as it can; try again in a second")
        assert refused.headers["retry-after"] == "1"
        chunks = b"%x\r\n%s\r\n" % (MIB, bytes(MIB))
        second.sendall(request(INFER, chunks * 6, CHUNKED))
        assert [answer.status for answer in read(second, 1)] == [503]
        assert ask(url, request(INFER, infer())).status == 200
        first.sendall(b"a")
        assert [answer.status for answer in read(first, 1)] == [413], "7 MiB of JSON"
    at_rest(url)


def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_nothing_behind(url: str) -> None:
    for _ in range(50):
        with connect(url) as client:
            client.sendall(request(INFER, bytes(100_000), "Content-Length: 200000"))
    assert at_rest(url)["classifier_held_bytes"] == 0


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "9" * 13, "abc", "", "5 5", "\xb2"])
def test_a_length_of_json_that_is_no_number_is_refused(url: str, length: str) -> None:
    answer = ask(url, request(INFER, infer(), f"Inference-Header-Content-Length: {length}"))
    assert refusal(answer) == (400, "Inference-Header-Content-Length is not a number of bytes")


def test_a_length_of_json_beyond_the_body_is_refused(url: str) -> None:
    answer = ask(url, request(INFER, b"{}", "Inference-Header-Content-Length: 3"))
    assert refusal(answer) == (400, "Inference-Header-Content-Length is 3, the body has 2 bytes")
