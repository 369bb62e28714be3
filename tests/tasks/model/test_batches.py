"""Batches: every image once, in order or shuffled."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import nn

from tasks.model.batches import BatchIndices, batches, predict
from tasks.model.classifier import Classifier
from tasks.prepared import Split
from tests.support import quickstart

CPU = torch.device("cpu")


def test_an_epoch_sees_every_image_once_in_a_new_order() -> None:
    indices = BatchIndices(10, 4, torch.Generator().manual_seed(0))
    first, second = ([batch.tolist() for batch in indices] for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert len(indices) == 3
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second


@pytest.mark.parametrize(
    ("size", "batch_size", "least", "expected"),
    [
        (9, 4, 2, [4, 5]),
        (9, 4, 1, [4, 4, 1]),
        (10, 4, 2, [4, 4, 2]),
        (7, 4, 4, [7]),
        (1, 4, 2, [1]),
        (3, 1, 2, [1] * 3),
    ],
)
def test_images_that_are_too_few_for_a_batch_are_part_of_the_one_before(
    size: int, batch_size: int, least: int, expected: list[int]
) -> None:
    indices = BatchIndices(size, batch_size, torch.Generator().manual_seed(0), least=least)
    found = list(indices)
    assert [len(batch) for batch in found] == [indices.images(number) for number in range(len(indices))] == expected
    assert sorted(torch.cat(found).tolist()) == list(range(size))


def test_without_shuffling_batches_come_in_order(prepared: Path) -> None:
    test = Split.read("test")
    loaded = list(batches(test, BatchIndices(8, 3), CPU))
    assert torch.equal(torch.cat([images for images, _ in loaded]), torch.from_numpy(test.images))
    assert torch.equal(torch.cat([labels for _, labels in loaded]), torch.from_numpy(test.labels))


def test_predict_leaves_no_dropout_on(prepared: Path) -> None:
    model = nn.Sequential(nn.Dropout(0.9), Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]))
    model[0] = nn.Identity()
    expected = predict(model, Split.read("test"), 3, CPU)
    dropping = nn.Sequential(model[1], nn.Dropout(0.9))
    assert torch.equal(predict(dropping.train(), Split.read("test"), 3, CPU), expected)
