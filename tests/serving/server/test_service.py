"""The champion is followed: a new one answers from one request to the next, or the one before it goes on."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving.champion import Champion
from serving.server import service as module
from serving.server.limits import Limits
from serving.server.served import open_champion
from serving.server.service import Service, follow
from tests.support import served
from tests.support.registry import keep, point

LIGHT = bytes([255]) * 16  # of class "light" to a model, and of class "dark" to one that has learnt the reverse
PATIENCE_S = 10


@pytest.fixture
def champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Champion:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    return point(tmp_path, keep(tmp_path, served.model()), 1)


@asynccontextmanager
async def running(root: Path, found: Champion) -> AsyncIterator[Service]:
    limits = Limits(batch=8)
    service = Service(open_champion(root, found, "auto", limits.batch), limits)
    following = asyncio.create_task(follow(service, root, found, "auto"))
    yield service
    assert not following.done()
    following.cancel()
    await service.batcher.close()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


async def answers_as(service: Service, number: int) -> None:
    await until(lambda: service.model.version == str(number))


def state(service: Service) -> tuple[str | None, bool]:
    return service.refused, service.metrics.swap_failed


async def label(service: Service) -> int:
    found = await service.batcher.submit(service.model, LIGHT, 1, PATIENCE_S)
    return int(found["probabilities"].argmax())


def test_a_new_champion_takes_over_between_two_requests_and_none_is_lost(tmp_path: Path, champion: Champion) -> None:
    other = keep(tmp_path, served.model(weights=served.REVERSED))

    async def play() -> None:
        async with running(tmp_path, champion) as service:
            answers: list[tuple[str, int]] = []

            async def ask() -> None:
                while True:
                    version = service.model.version
                    answers.append((version, await label(service)))

            clients = [asyncio.create_task(ask()) for _ in range(16)]
            for number in range(2, 8):
                point(tmp_path, champion if number % 2 else other, number)
                await answers_as(service, number)
                await asyncio.sleep(0.02)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            assert {version for version, _ in answers} == {str(number) for number in range(1, 8)}
            assert len(answers) > 1000
            assert all(label == int(version) % 2 for version, label in answers)
            assert service.metrics.swaps == {"switched": 6}
            assert set(service.batcher.statistics) == {str(number) for number in range(1, 8)}

    asyncio.run(play())


def damaged(root: Path, champion: Champion) -> None:
    with (root / champion.path).open("r+b") as file:
        file.seek(40)
        file.write(b"\0\0\0\0")


def gone(root: Path, champion: Champion) -> None:
    shutil.rmtree(root / champion.sha256)


def without_golden_requests(root: Path, champion: Champion) -> None:
    (root / champion.sha256 / "golden.json").unlink()


def with_nonsense_for_golden_requests(root: Path, champion: Champion) -> None:
    (root / champion.sha256 / "golden.json").write_text(json.dumps({"image_shape": [4, 4, 1], "requests": [{}]}))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (damaged, "its file is missing, or not the one that was promoted"),
        (gone, "its file is missing, or not the one that was promoted"),
        (without_golden_requests, "its golden requests cannot be read"),
        (with_nonsense_for_golden_requests, "its golden requests cannot be read"),
    ],
)
def test_a_champion_that_is_not_what_was_promoted_does_not_answer(
    tmp_path: Path,
    champion: Champion,
    spoil: Callable[[Path, Champion], None],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = keep(tmp_path, served.model(weights=served.REVERSED))
    spoil(tmp_path, other)

    async def play() -> None:
        async with running(tmp_path, champion) as service:
            point(tmp_path, other, 2)
            await until(lambda: service.refused)
            assert state(service) == (f"entry 2 of the history ({other.sha256[:7]}): {why}", True)
            assert service.metrics.swaps == {"refused": 1}
            assert (service.model.version, await label(service)) == ("1", 1)

            rolled_back = point(tmp_path, champion, 3)
            await answers_as(service, 3)
            assert service.model.sha256 == rolled_back.sha256
            assert state(service) == (None, False)

    asyncio.run(play())
    printed = capsys.readouterr()
    assert printed.err.count("serve: refused: entry 2") == 1, "said once, not at every look"
    assert printed.out == f"serve: version 3 ({champion.sha256[:7]}) answers now\n"


def test_a_champion_that_answers_otherwise_than_when_it_was_promoted_is_refused(
    tmp_path: Path, champion: Champion
) -> None:
    other = keep(tmp_path, served.model(weights=served.REVERSED), labels=[0, 1])

    async def play() -> None:
        async with running(tmp_path, champion) as service:
            point(tmp_path, other, 2)
            await until(lambda: service.refused)
            why = "1 of 2 golden requests get another answer than when it was promoted"
            assert service.refused == f"entry 2 of the history ({other.sha256[:7]}): {why}"

    asyncio.run(play())


def test_one_that_was_refused_is_tried_again_once_its_files_are_there(
    tmp_path: Path, champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.1)
    other = keep(tmp_path, served.model(weights=served.REVERSED))
    (tmp_path / other.sha256).rename(tmp_path / "elsewhere")

    async def play() -> None:
        async with running(tmp_path, champion) as service:
            point(tmp_path, other, 2)
            await until(lambda: service.refused)
            (tmp_path / "elsewhere").rename(tmp_path / other.sha256)
            await answers_as(service, 2)
            assert service.refused is None

    asyncio.run(play())


def test_champions_are_followed_though_nobody_reads_what_the_server_says(
    tmp_path: Path, champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = keep(tmp_path, served.model(weights=served.REVERSED))
    golden = tmp_path / other.sha256 / "golden.json"
    reader, writer = os.pipe()
    os.close(reader)

    async def play() -> None:
        async with running(tmp_path, champion) as service:
            point(tmp_path, champion, 2)
            await answers_as(service, 2)
            golden.rename(tmp_path / "elsewhere")
            point(tmp_path, other, 3)
            await until(lambda: service.refused)
            (tmp_path / "elsewhere").rename(golden)
            point(tmp_path, other, 4)
            await answers_as(service, 4)
            assert state(service) == (None, False)

    with os.fdopen(writer, "w") as nobody:
        monkeypatch.setattr("sys.stdout", nobody)
        monkeypatch.setattr("sys.stderr", nobody)
        asyncio.run(play())


@pytest.mark.parametrize("text", ["", "{}", None], ids=["empty", "no pointer", "gone"])
def test_a_pointer_that_is_damaged_or_gone_changes_nothing(
    tmp_path: Path, champion: Champion, text: str | None
) -> None:
    pointer = tmp_path / "champion.json"

    async def play() -> None:
        async with running(tmp_path, champion) as service:
            if text is None:
                pointer.unlink()
                await asyncio.sleep(0.1)
            else:
                pointer.write_text(text)
                await until(lambda: service.refused)
                assert service.refused == "the registry's champion.json is not what a promotion wrote"
            assert (service.model.version, await label(service)) == ("1", 1)
            point(tmp_path, champion, 1)
            await until(lambda: not service.refused)
            assert not service.metrics.swap_failed

    asyncio.run(play())
