"""Pictures for people: which images they show, and under which titles."""

import numpy as np

from tasks.evaluation import pictures
from tasks.prepared import Split
from tests.support.made import made_images


def test_samples_show_each_class_in_turn_under_its_name() -> None:
    images, labels = made_images(8)
    figure = pictures.samples(Split(images, labels), ["even", "odd"], 5)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["even", "odd", "even", "odd", "even"]
    for drawn, image in zip(axis.images, images[:5], strict=True):
        assert np.array_equal(np.asarray(drawn.get_array()), image[..., 0])


def test_mistakes_are_marked() -> None:
    images, labels = made_images(4)
    figure = pictures.predictions(Split(images, labels), np.array([0, 0, 1, 1]), ["even", "odd"], 4)
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == ["even", "✗ even\nis odd", "✗ odd\nis even", "odd"]
    assert [text.get_color() == "black" for text in texts] == [True, False, False, True]
    assert "2 mistakes" in figure.get_suptitle()
