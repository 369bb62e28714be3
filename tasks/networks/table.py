"""The networks by name: one row each.

A network takes images `float32 [N, C, H, W]` and gives logits `float32 [N, classes]`.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from tasks.networks import from_timm
from tasks.networks.cnn import Cnn
from tasks.networks.mlp import NeuralNetwork

# Each takes an image's shape (H, W, C), how many classes there are, and its options: its section of params.yaml;
# torch's random generator gives the weights.
NETWORKS: dict[str, type[nn.Module]] = {
    "mlp": NeuralNetwork,
    "cnn": Cnn,
}


def known(name: str) -> bool:
    """Tell whether `name` is a row, or has the form of a network of timm: which there are only timm can tell."""
    return name in NETWORKS or from_timm.NAME.fullmatch(name) is not None


def network(name: str) -> Callable[..., nn.Module]:
    """Return what builds the network that `known` knows, from the same arguments as a row."""
    if name in NETWORKS:
        return NETWORKS[name]
    return partial(from_timm.create, name.removeprefix(from_timm.PREFIX))
