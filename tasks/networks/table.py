"""The networks by name: one row each.

A network takes images `float32 [N, C, H, W]` and gives logits `float32 [N, classes]`.
"""

from torch import nn

from tasks.networks.cnn import Cnn
from tasks.networks.mlp import NeuralNetwork

# Each takes an image's shape (H, W, C), how many classes there are, and its options: its section of params.yaml;
# torch's random generator gives the weights.
NETWORKS: dict[str, type[nn.Module]] = {
    "mlp": NeuralNetwork,
    "cnn": Cnn,
}
