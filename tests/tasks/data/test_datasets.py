"""The table of datasets, compared with torchvision's."""

from typing import Any

import pytest
import torchvision

from tasks.data import datasets


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("fashion_mnist", torchvision.datasets.FashionMNIST),
        ("mnist", torchvision.datasets.MNIST),
        ("kmnist", torchvision.datasets.KMNIST),
    ],
)
def test_the_table_of_idx_files_is_torchvisions(name: str, theirs: Any) -> None:
    ours = datasets.DATASETS[name]
    assert [(archive.name, archive.md5) for archive in ours.archives] == theirs.resources
    assert list(ours.mirrors) == theirs.mirrors
    assert list(ours.class_names) == theirs.classes
    assert ours.folder == f"{theirs.__name__}/raw"


@pytest.mark.parametrize(
    ("name", "theirs"), [("cifar10", torchvision.datasets.CIFAR10), ("cifar100", torchvision.datasets.CIFAR100)]
)
def test_the_table_of_cifar_is_torchvisions(name: str, theirs: Any) -> None:
    ours = datasets.DATASETS[name]
    assert [(archive.name, archive.md5) for archive in ours.archives] == [(theirs.filename, theirs.tgz_md5)]
    assert ours.mirrors[0] + theirs.filename == theirs.url
    assert ours.folder == theirs.base_folder
