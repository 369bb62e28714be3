"""Threads that wait for each other sleep while others want the cores, and only then."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
import torch

from tasks.model import waiting
from tasks.model.cores import physical_cores
from tests.support.params import ROOT

pytestmark = pytest.mark.skipif(not waiting.SCHEDULER.exists(), reason="Linux tells how long threads wait for a core")

MAPS = Path("/proc/self/maps")  # what this process has loaded
BURNT = """
import time, torch
from tasks.model.waiting import sleeping

torch.set_num_threads(2)
images = torch.zeros(1 << 18)

def burnt_s():
    before = time.process_time()
    for _ in range(100):
        images.add_(1)  # in two threads, of which one then waits
        time.sleep(0.005)
    return time.process_time() - before

print(burnt_s())
with sleeping():
    time.sleep(0.5)
    print(burnt_s())
time.sleep(0.5)
print(burnt_s())
"""
BESIDE_OTHERS = """
import threading, time, torch
from tasks.model.determinism import set_up

set_up(threads=2)
images = torch.zeros(1 << 18)
end = time.monotonic() + 30
while time.monotonic() < end and threading.active_count() < 3:
    images.add_(1)
print([thread.name for thread in threading.enumerate()])
"""


def answer(program: str, **environment: str) -> str:
    words = (sys.executable, "-c", program)
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **environment}
    return subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


@pytest.mark.skipif(
    not MAPS.exists() or "libgomp" not in MAPS.read_text(), reason="the OpenMP that torch has is another"
)
@pytest.mark.skipif(physical_cores() == 1, reason="two threads on one core never spin")
def test_threads_spin_unless_they_are_told_to_sleep() -> None:
    before, meanwhile, afterwards = map(float, answer(BURNT).split())
    assert before > 3 * meanwhile < afterwards


@contextmanager
def busy_cores() -> Iterator[None]:
    words = (sys.executable, "-c", "while True: pass")
    others = [subprocess.Popen(words) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_beside_others_threads_are_to_sleep() -> None:
    with busy_cores():
        assert "_have_a_team" in answer(BESIDE_OTHERS)


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in waiting.SET_BY_HAND:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("variable", sorted(waiting.SET_BY_HAND))
def test_the_environment_has_the_last_word(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    monkeypatch.setattr(waiting, "_start", lambda: started.append(True))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    waiting.spin_while_alone()
    assert started == [True]
    monkeypatch.setenv(variable, "2000")
    waiting.spin_while_alone()
    assert started == [True]


@pytest.mark.usefixtures("nothing_set")
def test_a_single_thread_has_nobody_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_start", pytest.fail)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    waiting.spin_while_alone()


def test_they_spin_again_once_they_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    share = iter([0.1, 0.5, 0.9, 0.7, 0.4, 0.1, 0.5])  # threads that wait for a core, one look after the other
    now, waited = 0.0, 0.0
    said: list[str] = []

    class Over(Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now, waited
            assert timeout
            now += timeout
            if (this := next(share, None)) is None:
                self.set()
            else:
                waited += this * timeout
                said.append(f"{this}")
            return self.is_set()

    @contextmanager
    def sleeping() -> Iterator[None]:
        said.append("sleep")
        yield
        said.append("spin")

    monkeypatch.setattr(waiting, "_waited_s", lambda: waited)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(waiting, "sleeping", sleeping)
    waiting._watch(Over())
    assert said == ["0.1", "0.5", "0.9", "sleep", "0.7", "0.4", "0.1", "spin", "0.5"]


def test_how_long_threads_had_no_core_is_counted() -> None:
    """Two threads on one core: while one runs, the other waits."""

    def compute(until: float) -> None:
        while time.monotonic() < until:
            torch.zeros(1 << 14).exp_()  # Python's lock is free meanwhile

    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        before, until = waiting._waited_s(), time.monotonic() + 1
        threads = [Thread(target=compute, args=(until,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.9)  # a thread that has ended is no longer counted
        waited = waiting._waited_s() - before
        for thread in threads:
            thread.join()
    finally:
        os.sched_setaffinity(0, usable)
    assert waited > 0.3
