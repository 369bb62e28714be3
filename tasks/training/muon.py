"""Muon for a network as a whole: torch's takes matrices alone."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

NEWTON_SCHULZ_STEPS = 3  # as Jordan takes on CIFAR-10; torch takes 5 if nothing is said


class Muon(Optimizer):
    """torch's Muon for filters and hidden matrices, and SGD for the rest, at one learning rate and momentum.

    Filters `[out, in, height, width]` are a matrix `[out, in x height x width]`.

    Args:
        groups: as torch's optimisers take them.
        hidden: the parameters for Muon, of two dimensions or four.

    Source: Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, Muon: An optimizer for hidden layers in neural
    networks, 2024.
    """

    def __init__(self, groups: list[dict[str, Any]], hidden: set[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr})
        # A matrix lies in the memory of its filters, so that a step of the one is a step of the other.
        self.matrices = {filters: as_matrix(filters.detach(), filters) for filters in hidden}
        assert all(filters.data_ptr() == matrix.data_ptr() for filters, matrix in self.matrices.items())
        matrices = [[self.matrices[p] for p in group["params"] if p in hidden] for group in groups]
        others = [[p for p in group["params"] if p not in hidden] for group in groups]
        self.parts: list[Optimizer] = []
        if any(matrices):
            by_muon = self._like_groups(matrices)
            self.parts.append(torch.optim.Muon(by_muon, lr, momentum=momentum, ns_steps=NEWTON_SCHULZ_STEPS))
        if any(others):
            by_sgd = self._like_groups(others)
            self.parts.append(torch.optim.SGD(by_sgd, lr, momentum, nesterov=momentum > 0))

    def _like_groups(self, params: list[list[Tensor]]) -> list[dict[str, Any]]:
        return [group | {"params": some} for group, some in zip(self.param_groups, params, strict=True)]

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without a closure
        for filters, matrix in self.matrices.items():
            matrix.grad = None if filters.grad is None else as_matrix(filters.grad, filters)
        try:
            for part in self.parts:
                for group, its in zip(self.param_groups, part.param_groups, strict=True):
                    its["lr"] = group["lr"]
                part.step()
        finally:
            for matrix in self.matrices.values():
                matrix.grad = None  # it would keep the gradient of the filters in memory

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
            for group, its in zip(self.param_groups, part.param_groups, strict=True):
                group["lr"] = its["lr"]


def as_matrix(tensor: Tensor, filters: Tensor) -> Tensor:
    """View filters, or their gradient, as a matrix, a filter a row, in the order in which `filters` lie in memory."""
    if filters.ndim == 4 and filters.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(len(tensor), -1)
