"""What ends a stage that runs as a process of its own: a signal, or the end of whoever started it.

`python -m tasks <stage>` is attached before its imports, which take seconds. It then ends on SIGINT and SIGTERM, when
its parent dies, and when its standard input closes, if that is the lifeline of a flow (which starts DVC, which starts
the stage). A thread waits for each, because Python runs signal handlers only between two lines of the main thread.
"""

import ctypes
import os
import select
import shutil
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

STDIN_IS_LIFELINE = "STAGE_LIFELINE"  # environment: set by a flow that holds the other end of the standard input
STARTED_BY_TORCHRUN = "LOCAL_RANK"  # environment: set by torchrun, which tasks.training.ranks runs
ORPHANED = "stopped, because the run that started it ended"
POLL_S = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # prctl(2), Linux: the signal to send when the parent dies

# Held while a stage publishes, and for good by what ends it: there is no publishing after the end has begun.
publishing = threading.Lock()
# To be removed at the end. The thread that ends the stage may read it at any moment, so it is replaced, never changed.
partial_folders: frozenset[Path] = frozenset()

_parent = 0  # the process that this one was started by; 0: not attached


def attach(stage: str) -> None:
    """Tie this process to its parent and to its signals; call it before any other thread is started."""
    global _parent
    _parent = os.getppid()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # a signal that a parent ignores would never be pending
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # in the threads that torch starts, too: they inherit it
    # Nothing waits for them in a worker process, which could not be ended by one.
    os.register_at_fork(after_in_child=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, SIGNALS))
    threading.Thread(target=_wait_for_signal, args=(stage,), daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(stage,), daemon=True).start()


def holds() -> bool:
    """Tell whether whoever started this process is still there; true for one that is not attached."""
    return not _parent or (os.getppid() == _parent and not _orphaned_before_start() and not _stdin_closed(0))


def _wait_for_signal(stage: str) -> None:
    number = signal.Signals(signal.sigwait(SIGNALS))
    if not holds():
        _end(stage, number, ORPHANED)
    # torchrun ends the others once one of its processes has failed, which has said why.
    by_torchrun = number == signal.SIGTERM and STARTED_BY_TORCHRUN in os.environ
    _end(stage, number, "" if by_torchrun else f"stopped by {number.name}")


def _watch(stage: str) -> None:
    while holds():
        _stdin_closed(POLL_S)
    _end(stage, signal.SIGTERM, ORPHANED)


def _stdin_closed(timeout_s: float) -> bool:
    """Wait for the end of the lifeline: nobody ever writes to it, so it is readable only once it is closed."""
    files = [0] if STDIN_IS_LIFELINE in os.environ else []
    return bool(select.select(files, [], [], timeout_s)[0])


def _orphaned_before_start() -> bool:
    """Tell whether DVC died even before `attach`.

    DVC and its stage are in one session, and so is not, as a rule, what adopts an orphan. In a container that may be
    its first process, of the same session. A process that leads a session of its own, as each of torchrun's workers
    does, was not started by DVC itself, but by whoever gave it that session.
    """
    if "DVC_STAGE" not in os.environ or os.getsid(0) == os.getpid():
        return False
    return os.getsid(_parent) != os.getsid(0) or (_parent == 1 and b"dvc" not in _command_line(1))


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # not Linux
        return b""


def _end(stage: str, number: signal.Signals, why: str) -> NoReturn:
    publishing.acquire()
    for folder in partial_folders:
        shutil.rmtree(folder, ignore_errors=True)
    if why:
        with suppress(OSError):
            os.write(2, f"\n{stage}: {why}. Go on with `make run` or `dvc repro`\n".encode())
    os._exit(128 + number)
