"""Muon against torch's own, which takes matrices, and SGD for the rest."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tasks.networks.cnn import Cnn
from tasks.training.muon import NEWTON_SCHULZ_STEPS, Muon
from tasks.training.optimizers import optimizer
from tests.support.params import write_params

RATE, MOMENTUM, DECAY = 0.1, 0.6, 0.5


def network() -> Cnn:
    torch.manual_seed(0)
    return Cnn((8, 8, 3), 4, [5, 6]).to(memory_format=torch.channels_last)


def built(of: nn.Module, **changes: object) -> Muon:
    changes = {"optimizer": "muon", "learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY} | changes
    made = optimizer(of, write_params(train=changes).train)
    assert isinstance(made, Muon)
    return made


def gradients(of: nn.Module, steps: int = 3) -> Iterator[None]:
    """Give the parameters gradients, step by step."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in of.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            if parameter.ndim == 4:
                parameter.grad = parameter.grad.contiguous(memory_format=torch.channels_last)
        yield


def test_filters_go_as_torchs_muon_moves_their_matrices_and_the_rest_as_by_sgd(workspace: Path) -> None:
    ours, theirs = network(), network()
    made = built(ours)
    filters = [parameter for parameter in theirs.parameters() if parameter.ndim == 4]
    assert len(filters) == 2
    matrices = [nn.Parameter(one.detach().flatten(1).clone()) for one in filters]
    decaying = [parameter for parameter in theirs.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in theirs.parameters() if parameter.ndim == 1]
    muon = torch.optim.Muon(
        matrices, RATE, weight_decay=DECAY, momentum=MOMENTUM, ns_steps=NEWTON_SCHULZ_STEPS, nesterov=True
    )
    groups: list[dict[str, Any]] = [{"params": decaying, "weight_decay": DECAY}, {"params": others}]
    sgd = torch.optim.SGD(groups, RATE, MOMENTUM, nesterov=True)

    for _ in zip(gradients(ours), gradients(theirs), strict=True):
        made.step()
        for one, matrix in zip(filters, matrices, strict=True):
            assert one.grad is not None
            matrix.grad = one.grad.flatten(1)
        muon.step()  # type: ignore[no-untyped-call]  # torch
        sgd.step()

    expected: dict[str, Tensor] = {name: parameter.detach() for name, parameter in theirs.named_parameters()}
    names = [name for name, parameter in theirs.named_parameters() if parameter.ndim == 4]
    expected |= {name: matrix.detach().view_as(one) for name, one, matrix in zip(names, filters, matrices, strict=True)}
    for name, parameter in ours.named_parameters():
        # The columns of a matrix are in another order here, and bfloat16 rounds sums of another order differently.
        torch.testing.assert_close(parameter.detach(), expected[name], atol=0.001 if name in names else 0, rtol=0)
        assert not torch.equal(parameter, network().get_parameter(name)), "it has moved"


def test_a_matrix_is_one_and_keeps_no_gradient(workspace: Path) -> None:
    made = built(net := nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2)))
    (hidden,) = made.matrices
    assert hidden is net[0].weight, "the last layer is the head"
    for _ in gradients(net, 1):
        made.step()
    assert [matrix.grad for matrix in made.matrices.values()] == [None]
    made.zero_grad()
    assert hidden.grad is None


def test_filters_of_a_channel_each_are_no_matrices(workspace: Path) -> None:
    net = timm.create_model("test_convnext", num_classes=4)
    hidden = built(net).matrices.keys()
    depthwise = {layer.weight for layer in net.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1}
    assert depthwise
    assert hidden.isdisjoint(depthwise)
    assert {parameter.ndim for parameter in hidden} == {2, 4}
    vit = timm.create_model("test_vit", num_classes=4)
    assert built(vit).matrices.keys().isdisjoint({vit.get_parameter("pos_embed"), vit.get_parameter("head.weight")})


def test_the_learning_rate_of_each_group_is_the_one_of_the_step(workspace: Path) -> None:
    made = built(net := network(), transfer={"weights": None, "sha256": None, "freeze": "none", "backbone_rate": 0.5})
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for group in made.param_groups:
        group["lr"] = 0.0 if group["lr_scale"] == 0.5 else RATE
    for _ in gradients(net, 1):
        made.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True)]
    assert moved == [name.startswith("classify") for name, _ in net.named_parameters()]


def test_a_state_that_is_loaded_goes_on_as_the_one_that_was_saved(workspace: Path) -> None:
    first, second = network(), network()
    one, other = built(first), built(second)
    for step, _ in enumerate(zip(gradients(first), gradients(second), strict=True)):
        one.param_groups[0]["lr"] = RATE / (step + 1)
        one.step()
        if step == 1:
            second.load_state_dict(first.state_dict())
            other.load_state_dict(deepcopy(one.state_dict()))  # as from a file
            assert [group["lr"] for group in other.param_groups] == [RATE / 2, RATE]
        elif step == 2:
            other.param_groups[0]["lr"] = RATE / 3
            other.step()
    assert all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize("head", [True, False])
def test_what_has_nothing_for_one_of_the_two_is_trained_by_the_other(head: bool) -> None:
    """As of a network whose backbone is frozen."""
    matrix = nn.Parameter(torch.ones(2, 3))
    made = Muon([{"params": [matrix], "weight_decay": 0.0}], set() if head else {matrix}, RATE, MOMENTUM)
    matrix.grad = torch.ones(2, 3)
    made.step()
    assert [type(part).__name__ for part in made.parts] == ["SGD" if head else "Muon"]
    assert matrix.detach().ne(1).all()
