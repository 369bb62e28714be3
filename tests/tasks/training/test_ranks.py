"""Two processes train together what one trains alone; gloo on the CPU stands for NCCL on GPUs."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tasks import train
from tasks.harness.errors import StageError
from tasks.model.batches import BatchIndices
from tasks.training.curve import CURVE
from tasks.training.ranks import Ranks
from tests.support.params import ROOT, write_params

TRAIN: dict[str, object] = {"epochs": 3, "batch_size": 4, "learning_rate": 0.1, "momentum": 0.9, "accumulate": 2}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tasks", "train")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, *words),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def curve() -> list[list[float]]:
    with CURVE.open() as file:
        return [list(map(float, row)) for row in list(csv.reader(file))[1:]]


def test_two_processes_reach_the_curve_of_one(prepared: Path) -> None:
    """Within 1e-5: the sums of their gradients are rounded in another order. With a limit they agree on the time."""
    write_params(train=TRAIN)
    train.main()
    alone = curve()
    write_params(train=TRAIN | {"devices": 2, "max_minutes": 1000.0})
    answer = run("-m", "tasks", "train")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("Epoch 1/3") == 1, "only the first of them prints"
    assert answer.stdout.count("Saved PyTorch model state to models/model.pth") == 1
    for ours, expected in zip(curve(), alone, strict=True):
        assert ours == pytest.approx(expected, abs=1e-5)
    assert json.loads(Path("models/model.json").read_text())["processes"] == 2


def test_torchruns_two_that_were_killed_go_on_to_the_bytes_of_two_that_were_not(prepared: Path) -> None:
    flip = {"flip": True, "shift": 2, "cutout": 0, "color": 0.0, "mixup": 0.0, "cutmix": 0.0}
    write_params(train=TRAIN | {"epochs": 40, "devices": 2, "augment": flip})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CHECKPOINT_EVERY_S": "0"}
    torchrun = subprocess.Popen((sys.executable, *TORCHRUN), env=environment, stdout=subprocess.DEVNULL)
    while not list(Path(".cache/checkpoints").glob("*.pth")):
        assert torchrun.poll() is None
        time.sleep(0.01)
    workers = psutil.Process(torchrun.pid).children(recursive=True)
    assert len([worker for worker in workers if "tasks" in worker.cmdline()]) == 2
    torchrun.kill()
    torchrun.wait()
    psutil.wait_procs(workers, timeout=10)
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    resumed, undisturbed = [(run("-m", "tasks", "train"), Path("models/model.pth").read_bytes()) for _ in range(2)]
    assert resumed[0].stdout.count("where a run was stopped") == 1, resumed[0].stderr
    assert undisturbed[0].stdout.count("where a run was stopped") == 0, undisturbed[0].stderr
    assert resumed[1] == undisturbed[1]


def test_the_reason_why_one_of_them_failed_is_the_last_line(prepared: Path) -> None:
    write_params(train=TRAIN | {"devices": 2, "precision": "float16"})
    answer = run("-m", "tasks", "train")
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith("train: train.precision = float16: "), answer.stderr
    assert not Path("models/model.pth").exists()


@pytest.mark.parametrize("least", [1, 4])
@pytest.mark.parametrize(("size", "batch_size", "ranks"), [(7, 4, 2), (5, 4, 2), (6, 3, 4), (1, 8, 3)])
def test_each_image_of_each_batch_is_learned_from_by_one_process(
    size: int, batch_size: int, ranks: int, least: int
) -> None:
    def share(rank: int, ranks: int) -> BatchIndices:
        return BatchIndices(size, batch_size, torch.Generator().manual_seed(0), rank, ranks, least)

    whole, shares = share(0, 1), [share(rank, ranks) for rank in range(ranks)]
    for number, (together, *parts) in enumerate(zip(whole, *shares, strict=True)):
        learned = torch.cat([part[: share.mine(number)] for share, part in zip(shares, parts, strict=True)])
        assert sorted(learned.tolist()) == sorted(together.tolist())
        assert all(len(part) for part in parts), "none may be without an image: all take part in each step"
        assert whole.images(number) == len(together)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Ranks().device(torch.device("cuda")) == torch.device("cuda")
    with pytest.raises(StageError, match=r"this is process 2 of this machine, which has 1 cuda devices"):
        Ranks(rank=1, size=2, local=1, here=2).device(torch.device("cuda"))
