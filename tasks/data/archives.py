"""The archives in data/raw as their publishers ship them, read a few images at a time.

A dataset's row in `DATASETS` names its format; `READERS` has a reader for each.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.datasets import CIFAR_ROW, DATASETS, RAW, Dataset
from tasks.data.source import CHUNK_BYTES, Indices, Raw, Source
from tasks.harness.errors import StageError
from tasks.prepared import Images, Labels

FETCH_AGAIN = "fetch it again: dvc repro --force --single-item download"

Batch = tuple[Images, Labels]  # of CIFAR: uint8 [n, 3072], all red before all green and all blue; and int64 [n]


def read(name: str) -> Raw:
    """Open dataset `name` in data/raw.

    Raises:
        StageError: a file is not what it should be.
    """
    dataset = DATASETS[name]
    form = next((form for form in dataset.forms() if (RAW / form.folder).is_dir()), dataset)
    return READERS[form.format](RAW / form.folder, form)


def read_idx(folder: Path, dataset: Dataset) -> Raw:
    """Read the four files of MNIST and of those that took its place."""
    return Raw(
        class_names=list(dataset.class_names),
        training=_idx_source(folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"),
        test=_idx_source(folder / "t10k-images-idx3-ubyte", folder / "t10k-labels-idx1-ubyte"),
    )


def read_digits(folder: Path, dataset: Dataset) -> Raw:
    """Read scikit-learn's digits: rows of 64 pixels from 0 to 16 and a label, stored as round(value * 255 / 16)."""
    file = folder / "digits.csv"
    rows = np.loadtxt(file, delimiter=",")
    images = np.round(rows[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    formats = Counter({(8, 8, "L"): len(rows)})
    source = Source(rows[:, -1].astype(np.int64), (8, 8, 1), lambda: _indexed(iter([images])), (file,), formats)
    return Raw(list(dataset.class_names), source)


def read_cifar10(folder: Path, _: Dataset) -> Raw:
    batches = [folder / f"data_batch_{number}" for number in range(1, 6)]
    return _read_cifar(batches, folder / "test_batch", "labels", folder / "batches.meta", "label_names")


def read_cifar10_binary(folder: Path, dataset: Dataset) -> Raw:
    training = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
    return Raw(
        class_names=list(dataset.class_names),
        training=_cifar_source(training, _read_rows),
        test=_cifar_source([folder / "test_batch.bin"], _read_rows),
    )


def read_cifar100(folder: Path, _: Dataset) -> Raw:
    return _read_cifar([folder / "train"], folder / "test", "fine_labels", folder / "meta", "fine_label_names")


READERS: dict[str, Callable[[Path, Dataset], Raw]] = {
    "idx": read_idx,
    "digits": read_digits,
    "cifar10": read_cifar10,
    "cifar10_binary": read_cifar10_binary,
    "cifar100": read_cifar100,
}


def _indexed(chunks: Iterator[Images]) -> Iterator[tuple[Images, Indices]]:
    start = 0
    for images in chunks:
        yield images, np.arange(start, start + len(images))
        start += len(images)


def _idx_source(images: Path, labels: Path) -> Source:
    count, height, width = _idx_shape(images, 3)
    (labelled,) = _idx_shape(labels, 1)
    if labelled != count:
        raise StageError(f"{images} holds {count} images, but {labels} {labelled} labels")

    def chunks() -> Iterator[Images]:
        with images.open("rb") as file:
            file.seek(16)
            while chunk := file.read(max(1, CHUNK_BYTES // (height * width)) * height * width):
                yield np.frombuffer(chunk, np.uint8).reshape(-1, height, width, 1)

    values = np.fromfile(labels, np.uint8, offset=8)
    formats = Counter({(width, height, "L"): count})
    return Source(values, (height, width, 1), lambda: _indexed(chunks()), (images, labels), formats)


def _idx_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Read the header of an IDX file of unsigned bytes (format: end of http://yann.lecun.com/exdb/mnist)."""
    with path.open("rb") as file:
        header = file.read(4 + 4 * dimensions)
    shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist()) if len(header) == 4 + 4 * dimensions else ()
    size = path.stat().st_size
    if header[:4] != bytes((0, 0, 8, dimensions)) or size != len(header) + prod(shape):
        raise StageError(
            f"{path} ({size} bytes, header {header[:4].hex()}) is not an IDX file of unsigned bytes in {dimensions} "
            f"dimensions; {FETCH_AGAIN}"
        )
    return shape


def _read_cifar(training: list[Path], test: Path, labels: str, meta: Path, names: str) -> Raw:
    """Read CIFAR's Python version (format: https://www.cs.toronto.edu/~kriz/cifar.html)."""
    class_names = _unpickle(meta).get(names)
    if not isinstance(class_names, list):
        raise StageError(f"{meta} has no {names}; {FETCH_AGAIN}")

    def read_batch(file: Path) -> Batch:
        contents = _unpickle(file)
        rows, values = np.asarray(contents.get("data")), list(contents.get(labels, ()))
        if rows.dtype != np.uint8 or rows.shape != (len(values), 3 * 32 * 32):
            raise StageError(f"{file} is not a batch of CIFAR with uint8 rows of 3,072 and {labels}; {FETCH_AGAIN}")
        return rows, np.array(values, np.int64)

    return Raw(class_names, _cifar_source(training, read_batch), _cifar_source([test], read_batch))


def _read_rows(file: Path) -> Batch:
    """Read a batch of CIFAR-10's binary version (format: https://www.cs.toronto.edu/~kriz/cifar.html)."""
    contents = np.fromfile(file, np.uint8)
    if not len(contents) or len(contents) % CIFAR_ROW:
        raise StageError(f"{file} ({len(contents)} bytes) is not a batch of CIFAR with rows of 3,073; {FETCH_AGAIN}")
    rows = contents.reshape(-1, CIFAR_ROW)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


def _cifar_source(files: list[Path], read_batch: Callable[[Path], Batch]) -> Source:
    def chunks() -> Iterator[Images]:
        step = CHUNK_BYTES // (3 * 32 * 32)
        for file in files:
            images = read_batch(file)[0].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for start in range(0, len(images), step):
                yield np.ascontiguousarray(images[start : start + step])

    values = np.concatenate([read_batch(file)[1] for file in files])
    formats = Counter({(32, 32, "RGB"): len(values)})
    return Source(values, (32, 32, 3), lambda: _indexed(chunks()), tuple(files), formats)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of NumPy arrays and plain types; a pickle could otherwise name any code to run."""

    ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "encode"})

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # what NumPy 2 calls it
        if name not in self.ALLOWED or module not in ("numpy", "numpy._core.multiarray", "_codecs"):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            contents = _ArraysOnly(file, encoding="latin1").load()  # Python 2 wrote them
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise StageError(f"{path} is not a pickle of CIFAR's ({error}); {FETCH_AGAIN}") from None
    return contents if isinstance(contents, dict) else {}
