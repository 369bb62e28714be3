"""transform: the prepared arrays against other people's readers, the splits, and broken raw files."""

import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torchvision
from sklearn.datasets import load_digits

from tasks import datasets, download, moments, transform
from tasks import raw as raw_files
from tasks.prepared import Card, Split, SplitName
from tests.conftest import idx, made, made_images, with_archives, write_params

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def refusal() -> str:
    with pytest.raises(SystemExit) as stopped:
        transform.main()
    assert not Path("data/prepared").exists()
    return str(stopped.value.code)


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


def test_the_files_are_as_the_contract_says(raw: Path) -> None:
    transform.main()
    for name in SPLITS:
        images = np.load(f"data/prepared/{name}_images.npy", mmap_mode="r")
        labels = np.load(f"data/prepared/{name}_labels.npy")
        assert (images.dtype, images.shape[1:], images.flags.c_contiguous) == (np.uint8, (28, 28, 1), True)
        assert (labels.dtype, labels.shape) == (np.int64, (len(images),))
    card = json.loads(Path("data/prepared/dataset.json").read_text())
    assert card["schema_version"] == 1
    assert card["sizes"] == {"train": 6, "validation": 2, "test": 8}
    assert len(card["class_names"]) == 10
    assert set(card["sources"]) == {str(path.relative_to("data/raw")) for path in Path("data/raw").rglob("*ubyte")}


def test_mean_and_std_are_numpys_of_the_training_split(raw: Path) -> None:
    transform.main()
    pixels = Split.read("train").images.astype(np.float64) / 255
    assert Card.read().mean == pytest.approx([pixels.mean()], rel=1e-12)
    assert Card.read().std == pytest.approx([pixels.std()], rel=1e-12)


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


def test_the_held_out_images_are_stratified_and_depend_on_the_seed() -> None:
    labels = np.repeat(np.arange(3), (100, 50, 10))
    held_out = transform.hold_out(labels, 0.1, seed=0)
    assert np.bincount(labels[held_out]).tolist() == [10, 5, 1]
    assert np.array_equal(held_out, transform.hold_out(labels, 0.1, seed=0))
    assert not np.array_equal(held_out, transform.hold_out(labels, 0.1, seed=1))


def test_memory_does_not_grow_with_the_dataset(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "CHUNK_BYTES", 1 << 20)

    def peak(count: int) -> int:
        images, labels = made_images(count)
        (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
        (raw / "train-labels-idx1-ubyte").write_bytes(idx(labels))
        del images, labels
        tracemalloc.start()
        transform.main()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(2000)  # loads what the first call loads
    # Labels and masks do grow, by a few bytes an image of 784.
    assert peak(20_000) < 1.2 * peak(2000)


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


def test_a_label_without_a_class_is_named(raw: Path) -> None:
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1, 2, 3, 4, 5, 10, 11])))
    message = refusal()
    assert (
        "t10k-labels-idx1-ubyte: label 10 of image 6 has no class: there are 10, 0 to 9 (2 labels like it)" in message
    )


def test_test_images_must_be_as_large_as_the_training_images(raw: Path) -> None:
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((8, 14, 14, 1), np.uint8)))
    assert "test images are (14, 14, 1), training images (28, 28, 1)" in refusal()


def test_an_empty_split_is_refused(raw: Path) -> None:
    write_params(transform={"validation_fraction": 0.01})
    assert "the validation split would be empty: 8 training images, transform.validation_fraction = 0.01" in refusal()


def test_missing_raw_data_says_what_to_run(workspace: Path) -> None:
    assert "run the stages before this one too, with dvc repro transform" in refusal()


def test_every_dataset_has_a_reader() -> None:
    formats = {dataset.format for dataset in datasets.DATASETS.values()}
    assert formats == {*raw_files.READERS, "files"}


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
