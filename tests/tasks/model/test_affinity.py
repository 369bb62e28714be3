"""torch's threads have cores of their own while a stage computes, and only then."""

import ctypes
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from tasks import evaluate, export, train
from tasks.model import affinity
from tasks.model.affinity import apart, divided, usable_cores
from tasks.model.classifier import Classifier
from tests.support.params import ROOT, write_params

CPU = torch.device("cpu")
MAPS = Path("/proc/self/maps")  # what this process has loaded
needs_two_cores = pytest.mark.skipif(
    not MAPS.exists() or "libgomp" not in MAPS.read_text() or len(usable_cores()) < 2,
    reason="threads have cores of their own on Linux, with GCC's OpenMP and two cores",
)
PROGRAM = """
import os, sklearn.metrics, torch  # which bring an OpenMP each
from tasks.model.affinity import apart

torch.set_num_threads(2)
images = torch.zeros(1 << 18)


def computing():
    "The cores of the threads that OpenMP has: those that compute, this one first."
    images.add_(1)
    before = {thread: ticks(thread) for thread in os.listdir("/proc/self/task")}
    while len(busy := [thread for thread in before if ticks(thread) > before[thread] + 5]) < 2:
        images.add_(1)
    assert str(os.getpid()) in busy
    print(*sorted(",".join(map(str, sorted(os.sched_getaffinity(int(thread))))) for thread in busy))

def ticks(thread):
    fields = open(f"/proc/self/task/{thread}/stat").read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

computing()
with apart(torch.device("cpu")):
    computing()
    with apart(torch.device("cpu")):
        computing()
    computing()
try:
    with apart(torch.device("cpu")):
        raise ValueError
except ValueError:
    computing()
"""


@needs_two_cores
def test_two_threads_that_compute_share_no_core_inside_the_block() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = (sys.executable, "-c", PROGRAM)
    answer = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    before, *inside, afterwards = [
        [set(map(int, thread.split(","))) for thread in line.split()] for line in answer.splitlines()
    ]
    usable = os.sched_getaffinity(0)
    assert before == afterwards == [usable, usable]
    assert inside[0] == inside[1] == inside[2]
    one, other = inside[0]
    assert one | other == usable
    assert not one & other


@needs_two_cores
def test_each_stage_computes_in_threads_that_are_apart(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usable, seen = len(os.sched_getaffinity(0)), Counter[str]()
    forward = Classifier.forward

    def watched(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        seen["apart" if len(os.sched_getaffinity(0)) < usable else "together"] += 1
        return forward(self, images)

    write_params(train={"threads": 2})
    monkeypatch.setattr(Classifier, "forward", watched)
    for stage, together in ((train, False), (evaluate, False), (export, True)):  # together: to trace the graph
        seen.clear()
        stage.main()
        assert seen["apart"]
        assert bool(seen["together"]) == together
        assert len(os.sched_getaffinity(0)) == usable


@pytest.mark.parametrize(("device", "threads"), [("cpu", 1), ("cpu", 1000), ("meta", 2)])
def test_nothing_is_done_where_there_is_nothing_to_gain(
    device: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(affinity, "_in_each_thread", pytest.fail)
    with apart(torch.device(device)):
        pass


def test_an_openmp_without_the_entry_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    monkeypatch.setattr(affinity, "usable_cores", lambda: [{0}, {1}])
    usable = os.sched_getaffinity(0)
    with apart(CPU):
        assert os.sched_getaffinity(0) == usable


def test_logical_cpus_of_one_core_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5, 9})
    for cpu in (0, 1, 2, 4, 5):
        (topology := tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert usable_cores() == [{0, 4}, {1, 5}, {2}, {9}]  # 9 says nothing


@pytest.mark.parametrize(
    ("threads", "shares"),
    [
        (1, [{0, 1, 2, 3, 4}]),
        (2, [{0, 1}, {2, 3, 4}]),
        (3, [{0}, {1, 2}, {3, 4}]),
        (5, [{0}, {1}, {2}, {3}, {4}]),
        (6, []),
    ],
)
def test_cores_are_divided_among_the_threads(threads: int, shares: list[set[int]]) -> None:
    assert divided([{0}, {1}, {2}, {3}, {4}], threads) == shares
