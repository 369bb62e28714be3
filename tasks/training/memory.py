"""What to say when the memory is too small for a batch, and how much of it a training took."""

import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tasks.harness.errors import StageError
from tasks.model.batches import BatchIndices
from tasks.training.augmentation import augment

if TYPE_CHECKING:
    from tasks.training.state import Training

# How torch and the libraries under it say so for a CPU; for a GPU there is torch.OutOfMemoryError.
WORDS = ("DefaultCPUAllocator", "bad_alloc", "out of memory")


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in WORDS)


@contextmanager
def holding(what: str, device: torch.device) -> Iterator[None]:
    """Say in a StageError that the memory does not hold `what`, which ends with what to choose instead."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise StageError(f"out of memory on {device}, which does not hold {what}") from None


def advice(error: Exception, training: "Training", images: Tensor, labels: Tensor) -> Exception:
    """Return a StageError that says which batch size would fit, having tried; another error as it is.

    Args:
        images: of the batch that did not fit, `uint8 [N, H, W, C]`, with its labels.
    """
    if not is_out_of_memory(error):
        return error
    traceback.clear_frames(error.__traceback__)  # they hold what the layers have computed so far
    params, size = training.params, len(images) // 2
    while size and not _fits(training, images[: (most := _most(training, size))], labels[:most]):
        size //= 2
    fitting = size * training.ranks.size
    together = params.batch_size * params.accumulate
    try_this = (
        f"{fitting} fits; with train.accumulate: {-(-together // fitting)} a step is still of {together} images"
        if fitting
        else "no smaller one fits: choose a smaller train.network, or smaller images"
    )
    return StageError(
        f"out of memory on {training.device} in batch {training.batch + 1} of epoch {training.epoch} with "
        f"train.batch_size = {params.batch_size}: {try_this}"
    )


def _most(training: "Training", size: int) -> int:
    """Return of how many images a batch is at most, if each process is to get `size`."""
    of = training.indices
    like = BatchIndices(of.size, size * of.ranks, None, of.rank, of.ranks, of.least)
    return max(like.mine(0), like.mine(len(like) - 1))


def _fits(training: "Training", images: Tensor, labels: Tensor) -> bool:
    """Try a step; one image that batch norm refuses fits no better than what is too large."""
    training.optimizer.zero_grad()
    if training.device.type != "cpu":
        torch.get_device_module(training.device).empty_cache()
    try:
        images, targets = augment(images, labels, training.params.augment, training.classes)
        training.average_loss(training.classifier, images, targets).backward()  # type: ignore[no-untyped-call]
        training.optimizer.step()
    except (RuntimeError, MemoryError) as error:
        return not is_out_of_memory(error)
    except ValueError:
        return False
    return True


def peak(device: torch.device) -> tuple[int, int | None]:
    """Return the most memory that this process has held so far, in bytes: of the host, and of its GPU if it has one."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return used, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
