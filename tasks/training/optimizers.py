"""The optimisers, torch's own or made of them, and how the learning rate goes."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tasks.networks.head import head_layers, in_head
from tasks.params.train import Train
from tasks.training.muon import Muon


def optimizer(network: nn.Module, params: Train) -> Optimizer:
    """Build the optimiser of `params`; weights decay, biases and the parameters of normalisations do not.

    A group's `lr_scale`, as timm calls it, is the share of the learning rate that it gets.
    """
    parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    layers = head_layers(network)
    head = [parameter for name, parameter in parameters.items() if in_head(name, layers)]
    backbone = [parameter for name, parameter in parameters.items() if not in_head(name, layers)]
    groups = groups_of(list(parameters.values()), params.weight_decay, 1.0)
    if params.transfer.backbone_rate != 1:
        groups = groups_of(head, params.weight_decay, 1.0)
        groups += groups_of(backbone, params.weight_decay, params.transfer.backbone_rate)
    rate, momentum = params.learning_rate, params.momentum
    match params.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
        case "adam":
            return torch.optim.Adam(groups, lr=rate)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=rate, momentum=momentum)
        case "muon":
            return Muon(groups, matrices(network) & {*backbone}, rate, momentum)


def matrices(network: nn.Module) -> set[nn.Parameter]:
    """Return the weights that mix all that comes into a layer, which filters of a channel each do not."""
    mixing = (layer for layer in network.modules() if isinstance(layer, (nn.Linear, nn.Conv2d)))
    weights = (layer.weight for layer in mixing if getattr(layer, "groups", 1) == 1)
    return {weight for weight in weights if isinstance(weight, nn.Parameter)}


def groups_of(parameters: list[nn.Parameter], weight_decay: float, lr_scale: float) -> list[dict[str, Any]]:
    """Divide the parameters into those that decay and those that do not."""
    decaying = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [
        {"params": decaying, "weight_decay": weight_decay, "lr_scale": lr_scale},
        {"params": others, "weight_decay": 0.0, "lr_scale": lr_scale},
    ]


def learning_rate(step: float, steps: int, params: Train) -> float:
    """Return the learning rate of a step, the first being 0, of `steps`: it rises for the warm-up, and falls to 0 then.

    Source: cosine, Loshchilov and Hutter, SGDR, ICLR 2017, without restarts; one_cycle, Smith and Topin,
    Super-Convergence, 2018, in straight lines.
    """
    if params.schedule == "constant":
        return params.learning_rate
    rising = params.warm_up * steps
    if step < rising:
        return params.learning_rate * (step + 1) / (rising + 1)
    gone = min((step - rising) / (steps - rising), 1.0)  # of the rest
    left = (1 + math.cos(math.pi * gone)) / 2 if params.schedule == "cosine" else 1 - gone
    return params.learning_rate * left
