"""The network of the PyTorch quickstart."""

from math import prod

from torch import Tensor, nn


class NeuralNetwork(nn.Module):
    """The network of the PyTorch quickstart, its input as wide as the dataset's images.

    Source: https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html

    Args:
        final_relu: end with a ReLU, as an older version of the tutorial did.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, final_relu: bool = False) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(prod(image_shape), 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, classes),
            *([nn.ReLU()] if final_relu else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear_relu_stack(self.flatten(x))
        return logits
