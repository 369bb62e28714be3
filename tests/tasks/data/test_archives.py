"""Readers of the publishers' formats, compared with torchvision's and scikit-learn's."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision
from sklearn.datasets import load_digits

from tasks import download, transform
from tasks.data import archives, datasets
from tasks.prepared import SPLITS, Card, Split
from tests.support.made import idx, made, made_sprites, with_archives
from tests.support.params import write_params
from tests.support.refusal import refusal


def test_arrays_hold_what_torchvision_reads(raw: Path) -> None:
    transform.main()
    train, validation, test = (Split.read(name) for name in SPLITS)
    theirs = torchvision.datasets.FashionMNIST("data/raw", train=True)
    ours = {
        image.tobytes(): label
        for split in (train, validation)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    assert ours == {
        image.numpy().tobytes(): int(label) for image, label in zip(theirs.data, theirs.targets, strict=True)
    }
    assert len(train.labels) + len(validation.labels) == len(theirs)
    theirs = torchvision.datasets.FashionMNIST("data/raw", train=False)
    assert np.array_equal(test.images[..., 0], theirs.data.numpy())
    assert np.array_equal(test.labels, theirs.targets.numpy())


def test_digits_are_scikit_learns(workspace: Path) -> None:
    write_params(download={"dataset": "digits"})
    download.main()
    transform.main()
    theirs = load_digits()
    pixels = np.round(theirs.images * 255 / 16).astype(np.uint8)
    expected = sorted(zip((image.tobytes() for image in pixels), theirs.target.tolist(), strict=True))
    splits = [Split.read(name) for name in SPLITS]
    found = [(image.tobytes(), int(label)) for s in splits for image, label in zip(s.images, s.labels, strict=True)]
    assert sorted(found) == expected
    assert Card.read().image_shape == [8, 8, 1]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-1]),
        ("train-images-idx3-ubyte", lambda data: data + b"x"),
        ("t10k-images-idx3-ubyte", lambda data: data[:10]),
        ("train-labels-idx1-ubyte", lambda data: b""),
        ("train-labels-idx1-ubyte", lambda data: b"\0\0\x0d\x01" + data[4:]),  # 0x0d: floats
        ("t10k-labels-idx1-ubyte", lambda data: b"\x1f\x8b" + data[2:]),
    ],
)
def test_a_file_that_is_no_idx_file_is_named(raw: Path, name: str, spoil) -> None:  # type: ignore[no-untyped-def]
    (raw / name).write_bytes(spoil((raw / name).read_bytes()))
    message = refusal()
    assert f"{name} (" in message
    assert "is not an IDX file of unsigned bytes" in message


def test_images_and_labels_must_be_as_many(raw: Path) -> None:
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(7)))
    assert "train-images-idx3-ubyte holds 8 images" in refusal()


def test_every_dataset_has_a_reader() -> None:
    formats = {form.format for dataset in datasets.DATASETS.values() for form in dataset.forms()}
    assert formats == {*archives.READERS, "files"}


@pytest.fixture
def cifar(request: pytest.FixtureRequest, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """data/raw with a made CIFAR, which is torchvision's, too."""
    name = str(request.param)
    write_params(download={"dataset": name}, transform={"validation_fraction": 0.25})
    files = made(name)
    monkeypatch.setitem(datasets.DATASETS, name, with_archives(datasets.DATASETS[name], files))
    for archive, contents in files.items():
        (workspace / name).mkdir()
        (workspace / name / archive).write_bytes(contents)
    monkeypatch.setenv("DATA_MIRROR", str(workspace))
    download.main()
    theirs = getattr(torchvision.datasets, name.upper())
    for listed in ("train_list", "test_list"):
        monkeypatch.setattr(theirs, listed, [[file, None] for file, _ in getattr(theirs, listed)])
    monkeypatch.setattr(theirs, "meta", theirs.meta | {"md5": None})
    return name


@pytest.mark.parametrize("cifar", ["cifar10", "cifar100"], indirect=True)
def test_cifar_is_what_torchvision_reads(cifar: str) -> None:
    transform.main()
    theirs = getattr(torchvision.datasets, cifar.upper())
    test = theirs("data/raw", train=False)
    ours = Split.read("test")
    assert np.array_equal(ours.images, test.data)
    assert ours.labels.tolist() == test.targets
    train = theirs("data/raw", train=True)
    splits = [Split.read(name) for name in SPLITS[:2]]
    found = [(image.tobytes(), int(label)) for s in splits for image, label in zip(s.images, s.labels, strict=True)]
    assert sorted(found) == sorted((image.tobytes(), k) for image, k in zip(train.data, train.targets, strict=True))
    card = Card.read()
    assert (card.class_names, card.image_shape) == (train.classes, [32, 32, 3])
    pixels = splits[0].images / 255
    assert card.mean == pytest.approx(pixels.mean((0, 1, 2)).tolist(), rel=1e-12)
    assert card.std == pytest.approx(pixels.std((0, 1, 2)).tolist(), rel=1e-12)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize("cifar", ["cifar10"], indirect=True)
@pytest.mark.parametrize(
    ("file", "contents", "reason"),
    [
        ("data_batch_3", pickle.dumps(Evil()), "is not a pickle of CIFAR's"),
        ("data_batch_3", b"", "is not a pickle of CIFAR's"),
        ("data_batch_3", b"\x80\x02}q\x00", "is not a pickle of CIFAR's"),
        ("test_batch", pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "is not a batch of CIFAR"),
        ("test_batch", pickle.dumps({"data": np.zeros((1, 3071), np.uint8), "labels": [0]}), "is not a batch of CIFAR"),
        ("test_batch", pickle.dumps({"data": [0], "labels": [0]}), "is not a batch of CIFAR"),
        ("test_batch", pickle.dumps([1]), "is not a batch of CIFAR"),
        ("batches.meta", pickle.dumps({}), "has no label_names"),
    ],
)
def test_a_file_that_is_not_cifars_is_named_and_runs_no_code(
    cifar: str, file: str, contents: bytes, reason: str
) -> None:
    path = Path("data/raw/cifar-10-batches-py") / file
    path.write_bytes(contents)
    assert f"{path} {reason}" in refusal()
    assert not Path("evil").exists()


def test_cifar10_of_sprites_is_prepared_byte_for_byte_as_cifar10_of_pickles(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(download={"dataset": "cifar10"}, transform={"validation_fraction": 0.25})
    pickles, (sprites, instead) = made("cifar10"), made_sprites()
    row = replace(with_archives(datasets.DATASETS["cifar10"], pickles), instead=instead)
    monkeypatch.setitem(datasets.DATASETS, "cifar10", row)
    prepared = []
    for files, folder in ((pickles, row.folder), (sprites, instead.folder)):
        mirror = workspace / folder / "cifar10"
        mirror.mkdir(parents=True)
        for name, contents in files.items():
            (mirror / name).write_bytes(contents)
        monkeypatch.setenv("DATA_MIRROR", str(mirror.parent))
        shutil.rmtree(".cache", ignore_errors=True)
        download.main()
        transform.main()
        card = json.loads(Path("data/prepared/dataset.json").read_text())
        sources = card.pop("sources")
        assert {Path(source).parent.name for source in sources} == {folder}
        arrays = {path.name: path.read_bytes() for path in Path("data/prepared").glob("*.npy")}
        prepared.append((arrays, card, Path("reports/data.json").read_bytes()))
    assert len(prepared[0][0]) == 6
    assert prepared[0] == prepared[1]


@pytest.mark.parametrize("contents", [b"", b"0" * 3072, b"0" * 3074])
def test_a_file_that_is_no_batch_of_the_binary_version_is_named(workspace: Path, contents: bytes) -> None:
    write_params(download={"dataset": "cifar10"})
    folder = Path("data/raw/cifar-10-batches-bin")
    folder.mkdir(parents=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(contents if number == 3 else b"0" * 3073)
    assert f"{folder}/data_batch_3.bin ({len(contents)} bytes) is not a batch of CIFAR with rows of 3,073" in refusal()
