"""The networks by name: one row each.

A network takes images `float32 [N, C, H, W]` and gives logits `float32 [N, classes]`.
"""

from collections.abc import Callable

from torch import nn

from tasks.networks import quickstart

ImageShape = tuple[int, int, int]  # H, W, C

# Each builds a network for images of a shape and so many classes, its weights drawn from torch's random generator.
NETWORKS: dict[str, Callable[[ImageShape, int], nn.Module]] = {
    "NeuralNetwork": quickstart.NeuralNetwork,
}
