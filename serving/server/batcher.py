"""One thread runs the model on what waits, up to a limit, without waiting for more.

Under load the requests that come while a batch runs are the next batch; a request that comes alone is run at once. ONNX
Runtime lets other threads run meanwhile: the event loop goes on answering what needs no model.
"""

import asyncio
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from serving.model import OUTPUTS
from serving.server.limits import Limits
from serving.server.log import complain
from serving.server.metrics import Durations, Metrics, Statistics
from serving.server.refusal import Refusal, busy
from serving.server.served import Served

Outputs = dict[str, NDArray[np.float32]]


@dataclass(slots=True, eq=False)
class Item:
    """The images of one request."""

    model: Served
    pixels: bytes | memoryview
    count: int
    since: float
    due: float  # by the monotonic clock, as `since`
    answer: asyncio.Future[Outputs]


class Batcher:
    """Between the event loop, which submits and is answered, and the thread that runs the model."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._ended = False
        self._thread = Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()
        self.statistics: dict[str, Statistics] = {}  # by version

    def submit(
        self, model: Served, pixels: bytes | memoryview, count: int, timeout_s: float
    ) -> asyncio.Future[Outputs]:
        """Have the model answer images, `uint8 [count, H, W, C]`.

        Raises:
            Refusal: too many images wait already.
        """
        if self._metrics.waiting and self._metrics.waiting + count > self._limits.waiting:
            raise busy(f"{self._metrics.waiting} images wait already")
        self._metrics.waiting += count
        now = time.monotonic()
        due = now + min(timeout_s, self._limits.queue_s)
        item = Item(model, pixels, count, now, due, self._loop.create_future())
        self._queue.put(item)
        return item.answer

    async def close(self, *, at_once: bool = False) -> None:
        """Answer what was submitted, and end the thread.

        Args:
            at_once: after the images that the model is running, and nothing more is answered.
        """
        self._ended = at_once
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        following: Item | None = None
        while (first := following or self._queue.get()) and not self._ended:
            batch, following = self._gather(first)
            began = time.monotonic()
            late = [item for item in batch if item.due < began]
            if late:
                self._loop.call_soon_threadsafe(self._expire, late, began)
            if batch := [item for item in batch if item.due >= began]:
                self._answer(batch)

    def _answer(self, batch: list[Item]) -> None:
        """Run a batch, and if that fails each of its items by itself, so that one does not spoil the others."""
        began = time.monotonic()
        try:
            found = self._run(batch)
        except Exception as error:  # whatever it is, those that wait are told, and the next batch is run
            if len(batch) > 1:
                for item in batch:
                    self._answer([item])
            else:
                self._loop.call_soon_threadsafe(self._fail, batch[0], error, time.monotonic())
        else:
            self._loop.call_soon_threadsafe(self._deliver, batch, found, began, time.monotonic())

    def _gather(self, first: Item) -> tuple[list[Item], Item | None]:
        """Take what waits for the same model, up to a batch; and an item that did not fit, if there was one."""
        batch, images = [first], first.count
        while images < self._limits.batch:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None:
                self._queue.put(None)  # the end, which is looked at again after this batch
                break
            if item.model is not first.model or images + item.count > self._limits.batch:
                return batch, item
            batch.append(item)
            images += item.count
        return batch, None

    def _run(self, batch: list[Item]) -> Outputs:
        predictor = batch[0].model.predictor
        pixels = batch[0].pixels if len(batch) == 1 else b"".join([item.pixels for item in batch])
        images = np.frombuffer(pixels, np.uint8).reshape(-1, *predictor.image_shape)
        if len(images) <= self._limits.batch:
            return predictor.outputs(images)
        starts = range(0, len(images), self._limits.batch)
        parts = [predictor.outputs(images[start : start + self._limits.batch]) for start in starts if not self._ended]
        return {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS}

    def _expire(self, late: list[Item], now: float) -> None:
        for item in late:
            self._refuse(item, Refusal(504, "the deadline passed while the request waited for the model"), now)

    def _fail(self, item: Item, error: Exception, now: float) -> None:
        complain(str(error))
        self._refuse(item, Refusal(500, "the model failed on these images"), now)

    def _refuse(self, item: Item, refusal: Refusal, now: float) -> None:
        self._metrics.waiting -= item.count
        self._of(item.model).fail.add(now - item.since)
        _settle(item, refusal)

    def _deliver(self, batch: list[Item], found: Outputs, began: float, ended: float) -> None:
        statistics, probabilities = self._of(batch[0].model), found["probabilities"]
        self._metrics.waiting -= len(probabilities)
        given = np.all(np.isfinite(probabilities), axis=1)
        start = 0
        for item in batch:
            rows = slice(start, start + item.count)
            # Looked at one by one: an answer does not depend on who shares the batch.
            if given[rows].all():
                statistics.success.add(ended - item.since)
                _settle(item, {name: values[rows] for name, values in found.items()})
            else:
                given[rows] = False
                statistics.fail.add(ended - item.since)
                _settle(item, Refusal(500, "the model's answer to these images is not finite"))
            start += item.count
        self._count(batch, probabilities[given], began, ended)

    def _count(self, batch: list[Item], given: NDArray[np.float32], began: float, ended: float) -> None:
        """Count a batch, and the probabilities that were given as answers."""
        statistics, images = self._of(batch[0].model), sum(item.count for item in batch)
        statistics.inferences += len(given)
        statistics.last_ms = int(time.time() * 1000)
        statistics.infer.add(ended - began, len(batch))
        statistics.batches.setdefault(images, Durations()).add(ended - began)
        self._metrics.batch_images.observe(images)
        for item in batch:
            statistics.queue.add(began - item.since)
            self._metrics.queue_seconds.observe(began - item.since)
        class_names = batch[0].model.predictor.class_names
        for label, count in enumerate(np.bincount(given.argmax(1)).tolist()):
            if count:
                self._metrics.predictions[class_names[label]] += count

    def _of(self, model: Served) -> Statistics:
        return self.statistics.setdefault(model.version, Statistics())


def _settle(item: Item, answer: Outputs | Refusal) -> None:
    if item.answer.done():  # nobody waits for it any more
        return
    if isinstance(answer, Refusal):
        item.answer.set_exception(answer)
    else:
        item.answer.set_result(answer)
