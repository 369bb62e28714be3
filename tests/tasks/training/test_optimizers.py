"""The learning rate against torch's own schedules, and what decays."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from tasks.params.train import Train
from tasks.training.optimizers import learning_rate, optimizer
from tests.support.params import write_params


def rates(steps: int, **changes: object) -> list[float]:
    p = write_params(train={"learning_rate": 0.5} | changes).train
    return [learning_rate(step, steps, p) for step in range(steps)]


def torchs(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return found


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.9)


def test_a_constant_rate_is_constant(workspace: Path) -> None:
    assert rates(3, schedule="constant", warm_up=0.5) == [0.5] * 3


def test_cosine_without_a_warm_up_is_torchs(workspace: Path) -> None:
    assert rates(10, schedule="cosine", warm_up=0.0) == pytest.approx(torchs(CosineAnnealingLR(sgd(), 10), 10))


def test_one_cycle_falls_as_torchs_does(workspace: Path) -> None:
    theirs = OneCycleLR(sgd(), 0.5, total_steps=11, pct_start=4 / 11, anneal_strategy="linear", final_div_factor=1e9)
    assert rates(10, schedule="one_cycle", warm_up=0.3)[3:] == pytest.approx(torchs(theirs, 10)[3:], abs=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_it_rises_through_the_warm_up_to_the_highest_and_never_is_0(workspace: Path, schedule: str) -> None:
    found = rates(20, schedule=schedule, warm_up=0.25)
    assert found[:5] == pytest.approx([0.5 * step / 6 for step in range(1, 6)])
    assert found[5] == max(found) == 0.5
    assert found[5:] == sorted(found[5:], reverse=True)
    assert min(found) > 0


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_training_of_one_step_has_a_rate(workspace: Path, schedule: str) -> None:
    (only,) = rates(1, schedule=schedule, warm_up=0.9)
    assert 0 < only <= 0.5


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "muon"])
def test_weights_decay_and_biases_and_normalisations_do_not(workspace: Path, name: str) -> None:
    p: Train = write_params(train={"optimizer": name, "weight_decay": 0.1, "momentum": 0.9, "learning_rate": 0.5}).train
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3), nn.BatchNorm1d(3))  # a hidden layer and the head
    built = optimizer(network, p)
    assert type(built).__name__.lower() == name
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [parameter.clone() for parameter in network.parameters()]
    built.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
    assert moved == [True, False, True, False, False, False]
