"""The one place that sets seeds, deterministic algorithms, precision, threads and how memory is kept.

Method: https://docs.pytorch.org/docs/stable/notes/randomness.html
"""

import ctypes
import os
from contextlib import suppress

import torch

from tasks.model.cores import physical_cores

# Of malloc.h in glibc, and the largest value that it takes of each.
MMAP_THRESHOLD, LARGEST_BLOCK = -3, 32 << 20
TRIM_THRESHOLD, ANY_SIZE = -1, 2**31 - 1


def set_up(threads: int | None, seed: int = 0) -> torch.device:
    """Make torch compute the same on every run of one machine, and choose the device as the quickstart does.

    Args:
        threads: for operations on the CPU; None takes one per physical core that this process may use. Never the
            environment's OMP_NUM_THREADS: results differ in their last bits between counts.
        seed: of torch's random generators, on all devices.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS is deterministic only with this, read when it starts
    torch.manual_seed(seed)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms imports torch._inductor, for a second
    # It would fill each new tensor with NaN: a help in finding reads of unset memory, a cost in every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set dynamically
    torch.set_float32_matmul_precision("highest")  # no TF32
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False  # it chooses algorithms by timing them
    torch.set_num_threads(threads or physical_cores())
    _keep_memory()
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _keep_memory() -> None:
    """Keep what a step has freed for the next step.

    glibc gives large blocks back to the system, which hands them out again page by page and zeroed: a fifth of the time
    of a small network's step. Other libraries have no such function, and are left as they are.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(TRIM_THRESHOLD, ANY_SIZE)
