"""Which of torch's threads computes on which of the cores that this process may use."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import torch

CPUS = Path("/sys/devices/system/cpu")  # of Linux: https://docs.kernel.org/admin-guide/cputopology.html


@contextmanager
def apart(device: torch.device) -> Iterator[None]:
    """Let each of torch's threads compute on cores that no other one of them has, until the end of the block.

    In an operation the threads wait for each other. Left to the system, two of them may have one core in turns, as long
    as another process is busy: the one then waits while the other does, too. Results are the same bytes.

    Nothing is done for another device than the CPU, where there are fewer cores than threads, as inside such a block,
    nor where the system or OpenMP knows no such thing. Threads and processes that begin inside the block have the cores
    of the one that began them.

    Method: https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html. The environment, which it names for
    that, would put the first thread of every process on the first core.
    """
    threads = torch.get_num_threads()
    shares = divided(usable_cores(), threads) if device.type == "cpu" and hasattr(os, "sched_setaffinity") else []
    if len(shares) < 2:
        yield
        return
    # Most of small operations is done by the first thread, which should not be on the same core in all processes.
    first = os.getpid() % threads
    before: dict[int, set[int]] = {}

    def go(thread: int) -> None:
        before[thread] = os.sched_getaffinity(0)
        with suppress(OSError):  # these cores were taken away since
            os.sched_setaffinity(0, shares[(first + thread) % threads])

    def go_back(thread: int) -> None:
        with suppress(KeyError, OSError):  # a thread that is new, or none of these cores is left
            os.sched_setaffinity(0, before[thread])

    _in_each_thread(go)
    try:
        yield
    finally:
        _in_each_thread(go_back)


def usable_cores() -> list[set[int]]:
    """Return the logical CPUs that this thread may use, those of a physical core together."""
    cores: dict[str, set[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            core = (CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            core = str(cpu)
        cores.setdefault(core, set()).add(cpu)
    return list(cores.values())


def divided(cores: list[set[int]], threads: int) -> list[set[int]]:
    """Return the logical CPUs of each thread, all of about as many cores, or nothing where there are too few."""
    if len(cores) < threads:
        return []
    bounds = [thread * len(cores) // threads for thread in range(threads + 1)]
    return [set().union(*cores[low:high]) for low, high in pairwise(bounds)]


def _in_each_thread(do: Callable[[int], None]) -> None:
    """Call a function in each thread of OpenMP's, with its number, as GCC does for `#pragma omp parallel`.

    Nothing is done where torch has no OpenMP, or one that has no such entry.
    """
    openmp = ctypes.CDLL(torch._C.__file__)  # with what it is linked with: other libraries bring an OpenMP of their own
    with suppress(AttributeError):
        parallel, number = openmp.GOMP_parallel, openmp.omp_get_thread_num
        parallel(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: do(number())), None, torch.get_num_threads(), 0)
