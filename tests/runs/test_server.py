"""A server under load: what waits is bounded, health is answered all the same, and memory stays what it was."""

import asyncio
import gzip
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from serving.champion import Champion
from tests.serving.server.conftest import with_model
from tests.support import served
from tests.support.registry import keep, point
from tests.support.server import Running, running
from tests.support.wire import INFER, ask, at_rest, connect, get, infer, metrics, read, request

CLIENTS = 32
GROWN = 8 * 2**20  # bytes of memory, at most, that the second half of the requests, or swaps, may add
WHOLE = request(INFER, infer())
LIGHT = request(
    INFER, infer(bytes([255] * 16), outputs=[{"name": "probabilities", "parameters": {"classification": 1}}])
)
PADDING = 4 * 2**20  # bytes
PATIENCE_S = 60


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), 255).save(file, "PNG", compress_level=1)
    return file.getvalue()


def binary(number: int) -> bytes:
    one = {"name": "images", "datatype": "UINT8", "shape": [1, 4, 4, 1], "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [one], "id": str(number), "parameters": {"binary_data_output": True}}).encode()
    return request(INFER, head + bytes(16), f"Inference-Header-Content-Length: {len(head)}")


IMAGE = png(28)
FORM = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + IMAGE + b"\r\n--b--\r\n"


def mixed(number: int) -> tuple[bytes, int]:
    """Return a request of another kind for each number, and the status that it is answered with."""
    match number % 12:
        case 0 | 1 | 2 | 3:
            return binary(number), 200
        case 4 | 5:
            return request(INFER, infer(id=str(number))), 200
        case 6:
            return request(INFER, gzip.compress(infer(id=str(number))), "Content-Encoding: gzip"), 200
        case 7:
            return request("/predict", FORM, "Content-Type: multipart/form-data; boundary=b"), 200
        case 8:
            return request("/predict", IMAGE, "Content-Type: image/png"), 200
        case 9:
            return request("/predict", IMAGE[:50], "Content-Type: image/png"), 400
        case 10:
            return get(f"/nothing/{number}"), 404
        case _:
            return request(INFER, b'{"id": "%d"}' % number), 400


async def receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the status of an answer and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    return int(head.split()[1]), await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r")[0]))


async def client(url: str, numbers: range) -> Counter[bool]:
    """Ask one after the other, on a new connection now and then, and count which were answered as expected."""
    right = Counter[bool]()
    for start in range(0, len(numbers), 100):
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        for number in numbers[start : start + 100]:
            data, status = mixed(number)
            writer.write(data)
            right[(await receive(reader))[0] == status] += 1
        writer.close()
    return right


async def all_clients(url: str, numbers: range) -> Counter[bool]:
    share = len(numbers) // CLIENTS
    shares = [numbers[number * share : (number + 1) * share] for number in range(CLIENTS)]
    return sum(await asyncio.gather(*(client(url, one) for one in shares)), Counter())


@pytest.mark.parametrize("requests", [20_000, pytest.param(200_000, marks=pytest.mark.registry)])
def test_memory_is_flat_over_requests_of_all_kinds(tmp_path: Path, requests: int) -> None:
    with running(with_model(tmp_path)) as server:
        half = requests // 2
        assert asyncio.run(all_clients(server.url, range(half))) == {True: half // CLIENTS * CLIENTS}
        before = at_rest(server.url)["process_resident_memory_bytes"]
        assert asyncio.run(all_clients(server.url, range(half, requests))) == {True: half // CLIENTS * CLIENTS}
        grown = at_rest(server.url)["process_resident_memory_bytes"] - before
        assert grown < GROWN, f"{grown / 2**20:.1f} MiB"
        assert [line for line in server.log.read_text().splitlines() if not line.startswith("serve: ")] == []


async def swapped(url: str, root: Path, champions: Sequence[Champion], numbers: range) -> set[tuple[int, str, str]]:
    """Make champions by turns while clients ask; return the statuses, versions and labels that these were answered."""
    found = set[tuple[int, str, str]]()
    done = asyncio.Event()

    async def ask_on() -> None:
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        while not done.is_set():
            writer.write(LIGHT)
            status, body = await receive(reader)
            answer = json.loads(body)
            found.add((status, answer["model_version"], answer["outputs"][0]["data"][0].rpartition(":")[2]))
        writer.close()

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as clients:
        for _ in range(8):
            clients.create_task(ask_on())
        for number in numbers:
            point(root, champions[number % 2], number)
            while str(number) not in {version for _, version, _ in found}:
                await asyncio.sleep(0.01)
        done.set()
    return found


def test_champions_take_over_twenty_times_and_no_request_is_lost_and_no_memory(tmp_path: Path) -> None:
    root = tmp_path / "models/registry"
    padded = served.METADATA | {"padding": "a" * PADDING}  # so that a model that is kept shows
    champions = [
        keep(root, served.model(weights=weights, metadata=padded)) for weights in (served.REVERSED, served.WEIGHTS)
    ]
    point(root, champions[1], 1)
    with running(tmp_path, limits={"look_s": 0.05}) as server:
        found = asyncio.run(swapped(server.url, root, champions, range(2, 12)))
        before = at_rest(server.url)["process_resident_memory_bytes"]
        found |= asyncio.run(swapped(server.url, root, champions, range(12, 22)))
        after = at_rest(server.url)
        assert found <= {(200, str(number), served.CLASSES[number % 2]) for number in range(1, 22)}
        assert after['classifier_swaps_total{result="switched"}'] == 20
        grown = after["process_resident_memory_bytes"] - before
        assert grown < GROWN, f"{grown / 2**20:.1f} MiB"


def test_more_images_than_may_wait_are_told_to_come_again_and_then_taken(tmp_path: Path) -> None:
    limits = {"waiting": 16, "batch": 4, "model_s": 0.1}
    with running(with_model(tmp_path), limits=limits) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server.url)) for _ in range(40)]
        for one in clients:
            one.sendall(WHOLE)
        began = time.monotonic()
        assert ask(server.url, get("/v2/health/live")).status == 200
        assert time.monotonic() - began < 0.3, "though all that may wait do"
        answers = [answer for one in clients for answer in read(one, 1)]
        refused = [answer for answer in answers if answer.status == 503]
        assert (len(answers), len(refused)) == (40, 24)
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert {answer.error for answer in refused} == {"16 images wait already; try again in a second"}
        assert ask(server.url, WHOLE).status == 200


def test_a_body_that_waits_for_the_request_before_it_is_held_like_any_other(tmp_path: Path) -> None:
    with running(with_model(tmp_path), limits={"model_s": 0.5}) as server, connect(server.url) as one:
        one.sendall(WHOLE + request(INFER, bytes(30_000)))
        deadline = time.monotonic() + 5
        while metrics(server.url)["classifier_held_bytes"] < 30_000:
            assert time.monotonic() < deadline
        assert [answer.status for answer in read(one, 2)] == [200, 400]
        at_rest(server.url)


def test_a_deadline_in_microseconds_and_that_of_the_server_end_what_waits_too_long(tmp_path: Path) -> None:
    limits = {"batch": 1, "queue_s": 0.5, "model_s": 0.2}
    with running(with_model(tmp_path), limits=limits) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server.url)) for _ in range(8)]
        timeouts = [0, *[100_000] * 2, *[10_000_000] * 5]
        for one, timeout in zip(clients, timeouts, strict=True):
            one.sendall(request(INFER, infer(parameters={"timeout": timeout})))
            time.sleep(0.01)
        found = [read(one, 1)[0] for one in clients]
        assert [answer.status for answer in found[:3]] == [200, 504, 504]
        assert {answer.status for answer in found[3:]} == {200, 504}, "as many as are run within half a second"
        assert {answer.error for answer in found if answer.status == 504} == {
            "the deadline passed while the request waited for the model"
        }
        assert ask(server.url, WHOLE).status == 200


def asked(server: Running, file: bytes, clients: int) -> Counter[tuple[int, str]]:
    with ExitStack() as stack:
        found = [stack.enter_context(connect(server.url)) for _ in range(clients)]
        for one in found:
            one.sendall(request("/predict", file, "Content-Type: image/png"))
        answers = [read(one, 1)[0] for one in found]
    return Counter((answer.status, answer.error if answer.status > 200 else "") for answer in answers)


def test_image_files_wait_neither_in_any_number_nor_for_ever(tmp_path: Path) -> None:
    with running(with_model(tmp_path), limits={"decoding": 8, "queue_s": 0.05}) as server:
        found = asked(server, png(6000), 12)
        late = (504, "the deadline passed while the image file waited to be decoded")
        assert found[503, "8 image files wait already; try again in a second"] == 4
        assert found[late] >= 5
        assert found[200, ""] + found[late] == 8
        assert asked(server, png(28), 4) == {(200, ""): 4}
        assert metrics(server.url)["classifier_held_bytes"] == 0
