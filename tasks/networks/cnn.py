"""A small convolutional network for small images."""

from collections.abc import Sequence

from torch import Tensor, nn

SMALLEST = 6  # pixels: a map that is as high and wide as this, or more, is halved


class Cnn(nn.Module):
    """Blocks of a 3 x 3 convolution, max pooling, batch norm and ReLU, the largest value of each channel, a layer.

    It pools before it normalises: the two elementwise operations then have a quarter of the values to go through, which
    on a CPU takes longer than the convolution of a few channels. Once the map is small, a block pools no more.

    Args:
        channels: those that each block gives.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        height, width, before = image_shape
        blocks: list[nn.Module] = []
        for after in channels:
            blocks.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
            if min(height, width) >= SMALLEST:
                blocks.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            blocks += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.blocks(x).amax((2, 3)))
        return logits
