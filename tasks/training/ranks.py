"""Several processes that train one network, a device each: each learns from its share of every batch.

Method: https://docs.pytorch.org/docs/stable/notes/ddp.html
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tasks.harness.errors import StageError
from tasks.harness.lifeline import STARTED_BY_TORCHRUN
from tasks.model.cores import physical_cores


@dataclass(frozen=True)
class Ranks:
    """The processes of this training; `Ranks()` is one alone."""

    rank: int = 0  # of this process; the first of them validates, writes and publishes
    size: int = 1
    local: int = 0  # which of this machine's devices it takes
    here: int = 1  # how many of them are on this machine

    @classmethod
    def of_this_process(cls) -> "Ranks":
        """Read what torchrun, if it started this process, says in the environment."""
        if STARTED_BY_TORCHRUN not in os.environ:
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", STARTED_BY_TORCHRUN, "LOCAL_WORLD_SIZE")))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own device of the kind of `device`.

        Raises:
            StageError: there are fewer devices than processes.
        """
        if self.size == 1 or device.type == "cpu":
            return device
        if self.local >= (found := torch.get_device_module(device).device_count()):
            raise StageError(
                f"train.devices: this is process {self.local + 1} of this machine, which has {found} {device.type} "
                "devices: set it to that, or fewer"
            )
        torch.get_device_module(device).set_device(self.local)
        return torch.device(device.type, self.local)

    def threads(self) -> int:
        """Return this process's share of the physical cores."""
        return max(1, physical_cores() // self.here)

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Join the other processes of this training."""
        if self.size == 1:
            yield
            return
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap a model so that each backward pass gives all processes the mean of their gradients."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def agreed(self, value: float, device: torch.device) -> float:
        """Return what the first process has as `value`."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        distributed.broadcast(tensor, 0)
        return tensor.item()

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum of `value` over all processes."""
        if self.size > 1:
            distributed.all_reduce(value := value.clone())
        return value


def to_be_started(devices: int) -> bool:
    """Tell whether this process is to start those that train: there are to be several, and it is none of them."""
    return devices > 1 and STARTED_BY_TORCHRUN not in os.environ


def start(devices: int) -> None:
    """Run this stage as `torchrun --standalone --nproc-per-node=devices -m tasks train` does, until all have ended.

    In this process and not in torchrun's, because what ends this stage (tasks/harness/lifeline.py) then ends them.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # who failed has said why
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "tasks", "train")
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        sys.exit(max(first.exitcode, 1))
