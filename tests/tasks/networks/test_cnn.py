"""The small convolutional network, and that any image shape that can be prepared fits it."""

import pytest
import torch
from torch import nn

from tasks.networks.cnn import Cnn, Whitening, WholeMap
from tasks.networks.mlp import NeuralNetwork


@pytest.mark.parametrize(("stride", "convolutions", "whitening"), [(1, 1, 0), (2, 1, 0), (1, 2, 0), (2, 2, 3)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 40, 3), (8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 48, 3)])
def test_images_of_any_shape_become_logits(
    shape: tuple[int, int, int], stride: int, convolutions: int, whitening: int
) -> None:
    height, width, channels = shape
    network = Cnn(shape, 7, [2, 3, 4, 5], stride, convolutions, min(whitening, height, width)).eval()
    assert network(torch.zeros(2, channels, height, width)).shape == (2, 7)


@pytest.mark.parametrize(("size", "pools"), [(28, 3), (8, 1), (64, 4), (5, 0)])
def test_a_block_halves_the_map_while_it_is_large(size: int, pools: int) -> None:
    blocks = Cnn((size, size, 1), 10, [2, 2, 2, 2]).blocks
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in blocks) == pools


def test_a_stride_halves_the_map_instead_and_small_maps_are_seen_without_what_is_beyond_them() -> None:
    blocks = Cnn((28, 28, 1), 10, [2, 2, 2, 2], stride=2).blocks
    seen = [(layer.kernel_size[0], layer.padding[0]) for layer in blocks if isinstance(layer, nn.Conv2d)]
    assert seen == [(4, 1), (3, 1), (3, 1), (3, 0)]  # of maps of 28, 14, 7 and 3 pixels a side
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in blocks) == 2
    assert blocks.eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 2, 1, 1)


def test_where_filters_are_as_large_as_the_map_the_product_of_matrices_is_the_convolution() -> None:
    torch.manual_seed(0)
    layers = [layer for layer in Cnn((28, 28, 1), 10, [2, 3, 4, 5], stride=2).blocks if isinstance(layer, WholeMap)]
    (whole,) = layers
    x = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    expected = nn.functional.conv2d(x, whole.weight)
    torch.testing.assert_close(whole(x), expected)
    assert whole(x).is_contiguous(memory_format=torch.channels_last)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * weights).sum(), (x, whole.weight)) for y in (whole(x), expected)]
    torch.testing.assert_close(*gradients)


def test_it_is_what_its_layers_compute() -> None:
    torch.manual_seed(0)
    network = Cnn((8, 8, 1), 3, [4]).eval()
    x = torch.randn(2, 1, 8, 8)
    (weight, *_, bias) = network.parameters()
    pooled = nn.functional.max_pool2d(nn.functional.conv2d(x, weight, padding=1), 2)
    largest = (pooled / (1 + 1e-5) ** 0.5).relu().flatten(2).max(2).values
    torch.testing.assert_close(network(x), largest @ network.classify.weight.T + bias)


def test_the_first_filters_make_of_patches_uncorrelated_values_of_variance_1() -> None:
    torch.manual_seed(0)
    images = nn.functional.avg_pool2d(torch.randn(500, 3, 16, 16), 3, stride=1)  # neighbours are alike
    network = Cnn((14, 14, 3), 10, [4], whitening=2)
    network.look_at(images)
    first = network.blocks[0]
    assert isinstance(first, Whitening)
    assert first.bias is not None
    values = (first(images) - first.bias.view(-1, 1, 1)).transpose(0, 1).flatten(1)  # [filters, n]
    covariance = torch.cov(values)
    half = len(values) // 2
    torch.testing.assert_close(covariance[:half, :half], torch.eye(half), atol=0.05, rtol=0)
    torch.testing.assert_close(covariance[half:, :half], -covariance[:half, :half])


def test_the_first_filters_are_not_learned_and_their_biases_are() -> None:
    network = Cnn((8, 8, 1), 3, [4], whitening=2)
    learned = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert "blocks.0.weight" not in learned
    assert "blocks.0.bias" in learned


def test_patches_larger_than_the_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"whitening = 3: the images of 2 x 8 pixels are smaller than such a patch"):
        Cnn((2, 8, 1), 3, [4], whitening=3)


def test_the_quickstarts_network_ends_in_a_relu_if_asked() -> None:
    x = torch.randn(9, 1, 4, 4)
    assert NeuralNetwork((4, 4, 1), 3, final_relu=True)(x).min() == 0
    assert NeuralNetwork((4, 4, 1), 3, final_relu=False)(x).min() < 0
