"""A small convolutional network for small images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

SMALLEST = 6  # pixels: a map that is as high and wide as this, or more, is halved
PATCHES_OF = 5000  # images, from which the first filters are taken
REGULARIZER = 5e-4  # of the variance of a patch's component, before it is divided by its root


class Cnn(nn.Module):
    """Blocks of convolutions, max pooling, batch norm and ReLU, the largest value of each channel, and a linear layer.

    It pools before it normalises: the two elementwise operations then have a quarter of the values to go through, which
    on a CPU takes longer than the convolution of a few channels. Once the map is small, a block pools no more.

    Args:
        channels: those that each block gives.
        convolutions: of a block, 3 x 3 each.
        whitening: pixels a side of the patches whose principal components are the first filters; 0: without them.

    Raises:
        ValueError: the images are smaller than such a patch.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        channels: Sequence[int],
        convolutions: int = 1,
        whitening: int = 0,
    ) -> None:
        super().__init__()
        height, width, before = image_shape
        blocks: list[nn.Module] = []
        if whitening > min(height, width):
            raise ValueError(
                f"whitening = {whitening}: the images of {height} x {width} pixels are smaller than such a patch"
            )
        if whitening:
            first = Whitening(before, whitening)
            blocks += [first, nn.ReLU(inplace=True)]
            height, width, before = height - whitening + 1, width - whitening + 1, first.out_channels
        for after in channels:
            for number in range(convolutions):
                blocks.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
                if number == 0 and min(height, width) >= SMALLEST:
                    blocks.append(nn.MaxPool2d(2))
                    height, width = height // 2, width // 2
                blocks += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.blocks(x).amax((2, 3)))
        return logits

    def look_at(self, images: Tensor) -> None:
        """Take the first filters from training images as the network gets them, `float32 [N, C, H, W]`."""
        if isinstance(first := self.blocks[0], Whitening):
            first.look_at(images)


class Whitening(nn.Conv2d):
    """A convolution whose filters, and their negatives, are the principal components of patches, all of variance 1.

    Only its biases are learned. Source: Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, section 3.2.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(channels, 2 * channels * side**2, side)
        self.weight.requires_grad = False

    @torch.no_grad()
    def look_at(self, images: Tensor) -> None:
        patches = unfold(images, self.kernel_size).transpose(1, 2).flatten(0, 1)  # [n, channels x side x side]
        variances, components = torch.linalg.eigh(torch.cov(patches.T.double()))
        filters = (components / (variances + REGULARIZER).sqrt()).T.float().view(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))
