"""Whether torch's threads spin or sleep while they wait for each other: by whether others want the same cores.

After each operation the threads wait for the slowest of them. To spin until it comes is fastest as long as each has a
core: to wake a thread takes longer than most operations. Beside another process, a thread that spins keeps the slowest
one from its core. GCC's OpenMP spins for 300,000 rounds, and for 100 while it has more threads than there are cores, so
that extra threads that are idle make the others sleep.

Sources: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html and
https://docs.kernel.org/scheduler/sched-stats.html
"""

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Event, Thread

import torch

LOOK_EVERY_S = 0.5
CROWDED, FREE = 0.6, 0.3  # threads of this process that wait for a core, on average
SET_BY_HAND = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}  # in the environment
SCHEDULER = Path("/proc/self/schedstat")  # of Linux, and there by how it was built
WORTH_SHARING = 1 << 18  # elements; torch computes on few in one thread


def spin_while_alone() -> None:
    """Let torch's threads sleep while other processes take their cores, from now on, and spin otherwise.

    They sleep once more than CROWDED of them wait for a core, on average, until fewer than FREE do; both were found on
    two cores: benchmarks/README.md. Results are the same bytes. Nothing is done where the environment says how threads
    wait, nor where the system does not tell how long they have waited for a core; where OpenMP is not GCC's, it has no
    effect.
    """
    if torch.get_num_threads() > 1 and SCHEDULER.exists() and not SET_BY_HAND & os.environ.keys():
        _start()


@cache
def _start() -> None:
    over = Event()
    watcher = Thread(target=_watch, args=(over,), name="spin-while-alone", daemon=True)
    watcher.start()
    atexit.register(watcher.join)
    atexit.register(over.set)  # first: what is registered last is done first


def _watch(over: Event) -> None:
    while _until(lambda waiting: waiting > CROWDED, over):
        with sleeping():
            _until(lambda waiting: waiting < FREE, over)


def _until(enough: Callable[[float], bool], over: Event) -> bool:
    """Return True once so many threads of this process wait for a core, on average, and False once all is over."""
    waited_s, now = _waited_s(), time.monotonic()
    while not over.wait(LOOK_EVERY_S):
        before_s, then = waited_s, now
        waited_s, now = _waited_s(), time.monotonic()
        if enough((waited_s - before_s) / (now - then)):
            return True
    return False


def _waited_s() -> float:
    """Return how long the threads of this process could have run but had no core, in seconds, summed over threads."""
    nanoseconds = 0
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            nanoseconds += int((thread / "schedstat").read_text().split()[1])
    return nanoseconds / 1e9


@contextmanager
def sleeping() -> Iterator[None]:
    """Give OpenMP more threads than there are cores."""
    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    end = Event()
    # Each team adds all its threads but one, and of one thread alone there is none to wait for.
    teams = 1 + max(cores - threads, 0) // (threads - 1) if threads > 1 else 0
    leaders = [Thread(target=_have_a_team, args=(end,), daemon=True) for _ in range(teams)]
    for leader in leaders:
        leader.start()
    try:
        yield
    finally:
        end.set()
        for leader in leaders:
            leader.join()


def _have_a_team(end: Event) -> None:
    torch.zeros(WORTH_SHARING).add_(1)  # OpenMP keeps the threads that helped with it for as long as this one lives
    end.wait()
