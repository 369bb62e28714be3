"""The one place that sets seeds, deterministic algorithms, precision and thread count.

Method: https://docs.pytorch.org/docs/stable/notes/randomness.html
"""

import os

import psutil
import torch


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
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def physical_cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)
