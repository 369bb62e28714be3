"""What waits for the model is run together, up to a batch, and each request gets an answer of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.server.batcher import Batcher, Outputs
from serving.server.limits import Limits
from serving.server.metrics import Metrics
from serving.server.refusal import Refusal
from serving.server.served import Served

LIMITS = Limits(batch=8, waiting=40, queue_s=10)
POISON, NOT_FINITE = 66, 77  # pixels: on the one the model fails, of the other its answer is no number
PATIENCE_S = 10


@dataclass
class Model:
    """Of one pixel: the answer is that pixel. Runs when it is let."""

    version: str = "1"
    image_shape: tuple[int, int, int] = (1, 1, 1)
    class_names: tuple[str, ...] = ("pixel",)
    batches: list[list[int]] = field(default_factory=list)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    let: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def predictor(self) -> "Model":
        return self

    def outputs(self, images: NDArray[np.uint8]) -> Outputs:
        pixels = images.ravel().tolist()
        self.batches.append(pixels)
        self.begun.release()
        assert self.let.acquire(timeout=PATIENCE_S)
        if POISON in pixels:
            raise ValueError("poisoned \x1b[31m")
        found = images.reshape(-1, 1).astype(np.float32)
        found[found == NOT_FINITE] = np.nan
        return {"logits": found, "probabilities": found}

    def free(self) -> None:
        """Let it run from now on."""
        for _ in range(1000):
            self.let.release()


Asked = Callable[..., Awaitable[list[int]]]


class Play:
    """A batcher, and models that it runs."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.metrics = Metrics()
        self.batcher = Batcher(limits, self.metrics)
        self.model = Model()

    def ask(self, *pixels: int, model: Model | None = None, timeout_s: float = 10) -> "asyncio.Future[Outputs]":
        served = cast(Served, model or self.model)
        return self.batcher.submit(served, bytes(pixels), len(pixels), timeout_s)

    async def blocked(self) -> "asyncio.Future[Outputs]":
        """Have the model run, and wait, with one image."""
        first = self.ask(0)
        await self.begun()
        return first

    async def begun(self, model: Model | None = None) -> None:
        assert await asyncio.to_thread((model or self.model).begun.acquire, timeout=PATIENCE_S)


@asynccontextmanager
async def playing(limits: Limits = LIMITS) -> AsyncIterator[Play]:
    play = Play(limits)
    try:
        yield play
    finally:
        play.model.free()
        await play.batcher.close()
    assert play.metrics.waiting == 0


async def pixels(answer: "asyncio.Future[Outputs]") -> list[int]:
    found = await asyncio.wait_for(answer, PATIENCE_S)
    return [int(value) for value in found["probabilities"].ravel()]


async def refused(answer: "asyncio.Future[Outputs]") -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        await asyncio.wait_for(answer, PATIENCE_S)
    return refusal.value.status, str(refusal.value)


def test_an_image_that_comes_alone_is_run_at_once() -> None:
    async def play() -> None:
        async with playing() as it:
            answer = it.ask(5)
            await it.begun()
            assert it.model.batches == [[5]], "nobody else was waited for"
            it.model.free()
            assert await pixels(answer) == [5]

    asyncio.run(play())


def test_what_comes_while_a_batch_runs_is_the_next_batch_up_to_its_size_and_in_order() -> None:
    async def play() -> None:
        async with playing() as it:
            first = await it.blocked()
            others = [it.ask(number, number + 100) for number in range(1, 7)]
            it.model.free()
            assert await pixels(first) == [0]
            assert [await pixels(other) for other in others] == [[number, number + 100] for number in range(1, 7)]
            assert [len(batch) for batch in it.model.batches] == [1, 8, 4]

    asyncio.run(play())


def test_a_request_that_does_not_fit_into_a_batch_begins_the_next() -> None:
    async def play() -> None:
        async with playing() as it:
            await it.blocked()
            answers = [it.ask(*[number] * count) for number, count in ((1, 5), (2, 4), (3, 4), (4, 1))]
            it.model.free()
            assert [len(await pixels(answer)) for answer in answers] == [5, 4, 4, 1]
            assert it.model.batches == [[0], [1] * 5, [2] * 4 + [3] * 4, [4]]

    asyncio.run(play())


def test_a_request_of_more_images_than_a_batch_is_run_in_parts() -> None:
    async def play() -> None:
        async with playing() as it:
            it.model.free()
            assert await pixels(it.ask(*range(20))) == list(range(20))
            assert [len(batch) for batch in it.model.batches] == [8, 8, 4]

    asyncio.run(play())


def test_two_models_never_share_a_batch() -> None:
    async def play() -> None:
        async with playing() as it:
            other = Model("2")
            other.free()
            await it.blocked()
            answers = [it.ask(number, model=other if number % 2 else None) for number in range(1, 7)]
            it.model.free()
            assert [await pixels(answer) for answer in answers] == [[number] for number in range(1, 7)]
            assert it.model.batches == [[0], [2], [4], [6]]
            assert other.batches == [[1], [3], [5]]
            assert {version: one.inferences for version, one in it.batcher.statistics.items()} == {"1": 4, "2": 3}

    asyncio.run(play())


def test_a_request_that_the_model_fails_on_does_not_spoil_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    async def play() -> None:
        async with playing() as it:
            await it.blocked()
            answers = [it.ask(number) for number in (1, POISON, 2)]
            it.model.free()
            assert await pixels(answers[0]) == [1]
            assert await refused(answers[1]) == (500, "the model failed on these images")
            assert await pixels(answers[2]) == [2]
            assert await pixels(it.ask(3)) == [3], "and it goes on"
            assert it.batcher.statistics["1"].fail.count == 1

    asyncio.run(play())
    assert capsys.readouterr().err == "serve: poisoned \\x1b[31m\n", "for whoever runs the server, in one line"


def test_an_answer_that_is_not_finite_is_refused_and_those_beside_it_are_given() -> None:
    async def play() -> None:
        async with playing() as it:
            await it.blocked()
            answers = [it.ask(1), it.ask(3, NOT_FINITE), it.ask(2)]
            it.model.free()
            assert await pixels(answers[0]) == [1]
            assert await refused(answers[1]) == (500, "the model's answer to these images is not finite")
            assert await pixels(answers[2]) == [2]
            counted = it.batcher.statistics["1"]
            assert (counted.inferences, counted.success.count, counted.fail.count) == (3, 3, 1)
            assert it.metrics.predictions == {"pixel": 3}, "of an answer that is none no class is counted"

    asyncio.run(play())


def test_what_passed_its_deadline_in_the_queue_is_refused_and_not_run() -> None:
    async def play() -> None:
        async with playing() as it:
            await it.blocked()
            late, other = it.ask(1, timeout_s=0.01), it.ask(2)
            await asyncio.sleep(0.05)
            it.model.free()
            assert await refused(late) == (504, "the deadline passed while the request waited for the model")
            assert await pixels(other) == [2]
            assert it.model.batches == [[0], [2]]

    asyncio.run(play())


def test_no_request_waits_longer_than_the_server_lets_it() -> None:
    async def play() -> None:
        async with playing(Limits(batch=8, queue_s=0.01)) as it:
            await it.blocked()
            late = it.ask(1, timeout_s=1e9)
            await asyncio.sleep(0.05)
            it.model.free()
            assert (await refused(late))[0] == 504

    asyncio.run(play())


def test_more_images_than_may_wait_are_refused_until_there_is_room() -> None:
    async def play() -> None:
        async with playing() as it:
            await it.blocked()
            answers = [it.ask(*range(13)) for _ in range(3)]
            assert it.metrics.waiting == 40
            with pytest.raises(Refusal, match=r"^40 images wait already; try again in a second$") as refusal:
                it.ask(1)
            assert refusal.value.status == 503
            it.model.free()
            for answer in answers:
                await pixels(answer)
            assert it.metrics.waiting == 0
            assert await pixels(it.ask(*range(60))) == list(range(60)), "one request alone may be of any size"

    asyncio.run(play())


def test_a_request_that_nobody_waits_for_any_more_harms_no_other() -> None:
    async def play() -> None:
        async with playing() as it:
            await it.blocked()
            gone, other = it.ask(1), it.ask(2)
            gone.cancel()
            it.model.free()
            assert await pixels(other) == [2]
            assert it.metrics.waiting == 0

    asyncio.run(play())


def test_when_it_closes_all_that_waits_is_answered_first() -> None:
    async def play() -> None:
        it = Play()
        first = await it.blocked()
        answers = [it.ask(number) for number in range(1, 30)]
        it.model.free()
        await it.batcher.close()
        assert await pixels(first) == [0]
        assert [await pixels(answer) for answer in answers] == [[number] for number in range(1, 30)]

    asyncio.run(play())


def test_when_it_closes_at_once_nothing_more_is_run_than_what_the_model_is_at() -> None:
    async def play() -> None:
        it = Play()
        large = it.ask(*range(30))
        await it.begun()
        others = [it.ask(number) for number in range(1, 9)]
        closing = asyncio.create_task(it.batcher.close(at_once=True))
        await asyncio.sleep(0.05)
        it.model.free()
        await asyncio.wait_for(closing, PATIENCE_S)
        assert it.model.batches == [list(range(8))]
        assert not any(other.done() for other in others)
        del large

    asyncio.run(play())


def test_batches_and_images_are_counted() -> None:
    async def play() -> None:
        async with playing() as it:
            await it.blocked()
            answers = [it.ask(0, 0), it.ask(0)]
            it.model.free()
            for answer in answers:
                await pixels(answer)
            counted = it.batcher.statistics["1"]
            assert (counted.inferences, counted.success.count, counted.queue.count) == (4, 3, 3)
            assert {images: one.count for images, one in counted.batches.items()} == {1: 1, 3: 1}
            assert it.metrics.predictions == {"pixel": 4}
            assert it.metrics.batch_images.sum == 4

    asyncio.run(play())
