"""The networks by name: one row each.

A network takes images `float32 [N, C, H, W]` and gives logits `float32 [N, classes]`.
"""

from typing import Any

from torch import nn

from tasks.networks.cnn import Cnn
from tasks.networks.mlp import NeuralNetwork

ImageShape = tuple[int, int, int]  # H, W, C

# Each takes such a shape, so many classes, and its section of params.yaml; torch's random generator gives its weights.
NETWORKS: dict[str, type[nn.Module]] = {
    "mlp": NeuralNetwork,
    "cnn": Cnn,
}


def build(name: str, image_shape: ImageShape, classes: int, options: dict[str, Any]) -> nn.Module:
    """Build network `name` with the initial weights that torch's random generator gives."""
    return NETWORKS[name](image_shape, classes, **options)
