"""Means and standard deviations of pixels, compared with NumPy's."""

import numpy as np
import pytest

from tasks.data import moments


def test_moments_are_kept_for_each_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3), np.uint8)
    summed = moments.Moments(channels=3)
    for chunk in np.split(images, [3, 11]):
        summed.add(35, *moments.pixel_sums(chunk))
    assert summed.mean() == pytest.approx((images / 255).mean((0, 1, 2)), rel=1e-12)
    assert summed.std() == pytest.approx((images / 255).std((0, 1, 2)), rel=1e-12)


def test_deviations_are_those_of_each_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3), np.uint8)
    images[3] = 77
    found = moments.deviations(35, *moments.pixel_sums(images))
    assert found == pytest.approx(images.astype(float).std((1, 2)), abs=1e-9)
