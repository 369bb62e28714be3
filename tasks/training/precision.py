"""In how many bits a network is trained; its weights, and all that is made of them later, have 32."""

import torch

from tasks.harness.errors import StageError
from tasks.params.train import Precision


def resolve(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type in which `torch.autocast` computes, float32 being all without it.

    Raises:
        StageError: the device has no such arithmetic.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if precision == "float16" and device.type == "cpu":
        raise StageError("train.precision = float16: a CPU has no arithmetic for it; choose auto, bfloat16 or float32")
    chosen: torch.dtype = getattr(torch, precision)
    return chosen


def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether the processor has instructions for it; without, a CPU emulates it, more slowly than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
