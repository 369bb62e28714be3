"""The checkpoint from which a training that was stopped goes on: tensors and plain types, in .cache/checkpoints/.

It is no output of the stage: it lies outside DVC, under a name that is the digest of all that the stage depends on, so
that only a run which would do the same from its start goes on from there.
"""

import hashlib
import io
import math
import os
import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tasks.harness.errors import StageError

FOLDER = Path(".cache/checkpoints")
EVERY_S = "CHECKPOINT_EVERY_S"  # environment: the seconds between two, at least; it changes no byte of a result
DEFAULT_EVERY_S = "2"
MAX_SHARE = 0.02  # of the time may be spent on saving


class Checkpoint:
    """The newest state of one training, saved every few seconds.

    Args:
        key: what decides the results, but for the device, the threads and the instructions, which torch tells.
        ranks: how many processes train.
    """

    def __init__(self, key: str, device: torch.device, ranks: int = 1) -> None:
        machine = (
            device.type,
            ranks,
            torch.get_num_threads(),
            torch.backends.cpu.get_cpu_capability(),
        )
        self.path = FOLDER / f"{hashlib.sha256(repr((key, machine)).encode()).hexdigest()[:16]}.pth"
        self.every_s = _every_s()
        self._due = time.monotonic() + self.every_s

    def save_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save what `state` returns, unless the last time was just now."""
        if (started := time.monotonic()) < self._due:
            return
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        partial = self.path.with_suffix(".partial")
        try:
            FOLDER.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(buffer.getvalue())
            partial.replace(self.path)
        except OSError as error:  # a full disk ends no training that would do without it
            with suppress(OSError):
                partial.unlink()
            print(f"{self.path} not saved ({error.strerror}); training goes on", flush=True)
        seconds = time.monotonic() - started
        self._due = started + seconds + max(self.every_s, seconds / MAX_SHARE)

    def load(self) -> dict[str, Any] | None:
        """Return what was saved, its tensors on the CPU; None where there is nothing, or nothing that can be read."""
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            print(
                f"{self.path} cannot be read, so training begins anew: {str(error).partition(chr(10))[0]}", flush=True
            )
            return None
        return state

    def remove(self) -> None:
        """Remove this training's checkpoint, now that it has come to its end, and no other's."""
        self.path.unlink(missing_ok=True)


def _every_s() -> float:
    text = os.environ.get(EVERY_S, DEFAULT_EVERY_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < math.inf:
        raise StageError(f"{EVERY_S}={text}: it should be a number of seconds, 0 or more")
    return seconds
