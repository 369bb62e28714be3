"""Augmentation: what each image may become, and that its label says what is on it."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast, adjust_saturation

from tasks.params.train import Augment
from tasks.training.augmentation import augment, cut, flipped, mixed, recolored, shifted

NONE: dict[str, Any] = {"flip": False, "shift": 0, "cutout": 0, "color": 0.0, "mixup": 0.0, "cutmix": 0.0}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def some(count: int = 64, height: int = 6, width: int = 9, channels: int = 3) -> Tensor:
    return torch.randint(1, 256, (count, height, width, channels), dtype=torch.uint8)


def test_nothing_is_asked_for_and_nothing_is_done() -> None:
    images, labels = some(), torch.arange(64)
    same, still = augment(images, labels, Augment(**NONE), 64)
    assert same is images
    assert still is labels


def test_half_of_the_images_are_mirrored() -> None:
    images = some()
    found = flipped(images)
    as_they_were = (found == images).flatten(1).all(1)
    mirrored = (found == images.flip(2)).flatten(1).all(1)
    assert (as_they_were ^ mirrored).all()
    assert 20 < mirrored.sum() < 44


def test_each_image_is_shifted_its_own_way_and_reflected_at_the_edge() -> None:
    images = some()
    found = shifted(images, 2)
    padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2).float(), (2, 2, 2, 2), mode="reflect")
    windows = {
        (down, right): padded[:, :, down : down + 6, right : right + 9].permute(0, 2, 3, 1).to(torch.uint8)
        for down in range(5)
        for right in range(5)
    }
    seen = set()
    for index in range(64):
        (where,) = [at for at, window in windows.items() if torch.equal(window[index], found[index])]
        seen.add(where)
    assert len(seen) > 15


def test_a_shift_beyond_the_image_is_one_by_as_much_as_can_be_reflected() -> None:
    assert shifted(some(height=3, width=1), 50).shape == (64, 3, 1, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_as_torchvision_changes_them(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    images = some(channels=channels)
    drawn = torch.rand(3, 64, 1, 1, 1)
    monkeypatch.setattr("torch.rand", lambda *_, **__: drawn)
    found = recolored(images, 0.5)
    for image, ours, factors in zip(images, found, (drawn + 0.5).flatten(1).T.tolist(), strict=True):
        theirs = image.permute(2, 0, 1).float() / 255
        for adjust, factor in zip((adjust_brightness, adjust_contrast, adjust_saturation), factors, strict=True):
            theirs = adjust(theirs, factor)
        assert torch.allclose(ours.permute(2, 0, 1).float(), 255 * theirs, atol=0.51)


def test_a_square_is_blackened_and_the_rest_stays() -> None:
    images = some(height=20, width=20)
    found = cut(images, 4)
    black = (found == 0).all(3)
    assert torch.equal(found[~black], images[~black])
    assert black.sum((1, 2)).max() == 16
    assert black.sum((1, 2)).min() >= 4, "its middle is in the image"
    assert len(torch.unique(black.flatten(1), dim=0)) > 32


def test_mixup_mixes_pixels_as_it_mixes_labels() -> None:
    images = torch.zeros(64, 4, 4, 1, dtype=torch.uint8)
    images[::2] = 200
    labels = torch.arange(64) % 2
    found, shares = augment(images, labels, Augment(**NONE | {"mixup": 1.0}), 2)
    assert found.dtype == torch.uint8
    torch.testing.assert_close(shares.sum(1), torch.ones(64))
    assert (found[:, 0, 0, 0].float() - 200 * shares[:, 0]).abs().max() <= 0.5
    assert len(torch.unique(shares, dim=0)) > 16


def test_cutmix_gives_the_label_the_share_of_the_area() -> None:
    images = torch.zeros(64, 10, 12, 1, dtype=torch.uint8)
    images[::2] = 1
    shares = torch.nn.functional.one_hot(torch.arange(64) % 2, 2).float()
    found, its = mixed(images, shares, Augment(**NONE | {"cutmix": 1.0}))
    torch.testing.assert_close(found.float().mean((1, 2, 3)), its[:, 0])
    assert len(torch.unique(its, dim=0)) > 16


def test_an_image_is_mixed_in_one_way() -> None:
    with pytest.raises(ValueError, match="mixup and cutmix should not both be above 0"):
        Augment(**NONE | {"mixup": 0.2, "cutmix": 1.0})
