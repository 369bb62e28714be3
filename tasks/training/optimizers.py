"""The optimisers, torch's own, and how the learning rate goes."""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from tasks.params.train import Train


def optimizer(network: nn.Module, params: Train) -> Optimizer:
    """Build the optimiser of `params`; weights decay, biases and the parameters of normalisations do not."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
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
