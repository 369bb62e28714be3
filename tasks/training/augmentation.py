"""Augmentation of a batch as a whole, each image in its own way, drawn from torch's random generator."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tasks.params.train import Augment


def augment(images: Tensor, labels: Tensor, params: Augment, classes: int) -> tuple[Tensor, Tensor]:
    """Augment images `uint8 [N, H, W, C]` with the labels `int64 [N]`.

    Returns:
        Images of that shape and type, and labels: the same, or where images are mixed `float32 [N, classes]`, the share
        of each class.
    """
    if params.flip:
        images = flipped(images)
    if params.shift:
        images = shifted(images, params.shift)
    if params.color:
        images = recolored(images, params.color)
    if params.cutout:
        images = cut(images, params.cutout)
    if params.mixup or params.cutmix:
        return mixed(images, one_hot(labels, classes).float(), params)
    return images, labels


def flipped(images: Tensor) -> Tensor:
    """Mirror half of the images, left and right."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(2), images)


def shifted(images: Tensor, most: int) -> Tensor:
    """Shift each image by up to so many pixels both ways; what comes in is a reflection of what is at the edge."""
    count, height, width, _ = images.shape
    rows, columns = (_seen(count, size, most, images.device) for size in (height, width))
    chosen = torch.arange(count, device=images.device)
    return images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]


def _seen(count: int, size: int, most: int, device: torch.device) -> Tensor:
    """Say for each of `count` images which of its rows, or columns, are seen after a shift: `int64 [count, size]`."""
    most = min(most, size - 1)  # an image reflects no more than there is of it
    by = torch.randint(-most, most + 1, (count, 1), device=device)
    there = (torch.arange(size, device=device) + by).abs()  # -1 is a reflection of 1
    return (size - 1) - ((size - 1) - there).abs()


def recolored(images: Tensor, most: float) -> Tensor:
    """Change brightness, contrast and saturation of each image, by factors from 1 - `most` to 1 + `most`.

    What they are, and the weights of red, green and blue in grey, is as in torchvision's ColorJitter (transforms.v2),
    which draws their order, too; here it is that one. Grey images have no saturation.
    """
    brightness, contrast, saturation = 1 + most * (2 * torch.rand(3, len(images), 1, 1, 1, device=images.device) - 1)
    changed: Tensor = (images * brightness).clamp(0, 255)
    changed = changed.lerp(_grey(changed).mean((1, 2, 3), keepdim=True), 1 - contrast).clamp(0, 255)
    return changed.lerp(_grey(changed), 1 - saturation).clamp(0, 255).round().to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Return how bright each pixel is, `float32 [N, H, W, 1]`."""
    weights = torch.tensor([0.2989, 0.587, 0.114] if images.shape[3] == 3 else [1.0], device=images.device)
    return (images * weights).sum(3, keepdim=True)


def cut(images: Tensor, side: int) -> Tensor:
    """Blacken a square of each image, its middle anywhere (DeVries and Taylor, Improved Regularization, 2017)."""
    return images.masked_fill(_boxes(images, torch.full((len(images),), side, device=images.device))[..., None], 0)


def mixed(images: Tensor, shares: Tensor, params: Augment) -> tuple[Tensor, Tensor]:
    """Mix each image and its label with those of another image of the batch.

    Source: Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019.
    """
    alpha = torch.tensor(params.mixup or params.cutmix)
    weight = torch.distributions.Beta(alpha, alpha).sample((len(images),)).to(images.device)  # of the image itself
    order = torch.randperm(len(images), device=images.device)
    if params.mixup:
        own = weight[:, None, None, None]
        images = (own * images + (1 - own) * images[order]).round().to(torch.uint8)
    else:
        height, width = images.shape[1:3]
        box = _boxes(images, (1 - weight).sqrt()[:, None] * torch.tensor([height, width], device=images.device))
        images = torch.where(box[..., None], images[order], images)
        weight = 1 - box.float().mean((1, 2))
    return images, weight[:, None] * shares + (1 - weight[:, None]) * shares[order]


def _boxes(images: Tensor, sides: Tensor) -> Tensor:
    """Choose a rectangle in each image, its middle anywhere in the image: `bool [N, H, W]`.

    Args:
        sides: of the squares, `[N]`, or height and width of the rectangles, `[N, 2]`, in pixels.
    """
    count, height, width, _ = images.shape
    sides = sides.view(count, -1).expand(count, 2)
    inside = []
    for dimension, size in enumerate((height, width)):
        middle = torch.rand(count, 1, device=images.device) * size
        half = sides[:, dimension, None] / 2
        pixels = torch.arange(size, device=images.device) + 0.5
        inside.append((pixels - middle).abs() < half)
    return inside[0][:, :, None] & inside[1][:, None, :]
