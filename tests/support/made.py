"""Small datasets in the formats of their publishers."""

import gzip
import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.data import datasets
from tasks.data.datasets import Archive, Dataset
from tasks.prepared import Images, Labels

assert datasets.DATASETS["cifar10"].instead
CIFAR10 = datasets.DATASETS["cifar10"].instead  # before a test puts a made one in its place


def made_images(count: int, seed: int = 0) -> tuple[Images, Labels]:
    """Make images `uint8 [N, 28, 28, 1]` and labels `int64 [N]`: two classes in turn."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 1), np.uint8)
    return images, np.arange(count) % 2


def idx(values: Images | Labels) -> bytes:
    """Write an array as an IDX file of unsigned bytes, images without their channel axis."""
    array = values.astype(np.uint8).squeeze(-1) if values.ndim == 4 else values.astype(np.uint8)
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def made_archives(training: int = 8, test: int = 8) -> dict[str, bytes]:
    """Make the four archives of a Fashion-MNIST with fewer images."""
    files: dict[str, bytes] = {}
    for prefix, count, seed in (("train", training, 1), ("t10k", test, 2)):
        images, labels = made_images(count, seed)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(images), mtime=0)
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels), mtime=0)
    return files


def with_archives(row: Dataset, files: dict[str, bytes]) -> Dataset:
    listed = tuple(Archive(name, len(data), hashlib.md5(data).hexdigest()) for name, data in files.items())
    return replace(row, archives=listed, mirrors=())


def made_rows(batch: int, images: int) -> tuple[Images, Labels]:
    """Make the images `uint8 [N, 3072]` and labels `int64 [N]` of a batch of a CIFAR."""
    return np.random.default_rng(batch).integers(0, 256, (images, 3072), np.uint8), (np.arange(images) + batch) % 2


def made_sprites(images: int = 8) -> tuple[dict[str, bytes], Dataset]:
    """Make the sprites and labels of the CIFAR-10 of `made_cifar`, four images a row, and the row that names them."""
    labels, archives = b"", list(CIFAR10.archives)
    files = {datasets.LABELS: b""}
    for number, archive in enumerate(archives[1:]):
        rows, values = made_rows(number, images)
        tiles = rows.reshape(images // 4, 4, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(images * 8, 128, 3)
        binary = np.c_[values.astype(np.uint8), rows].tobytes()
        archives[number + 1] = replace(
            archive, size=len(binary), md5=hashlib.md5(binary).hexdigest(), first_label=len(labels)
        )
        buffer = io.BytesIO()
        Image.fromarray(tiles).save(buffer, "WEBP", lossless=True)
        files[archive.sprite] = buffer.getvalue()
        labels += values.astype(np.uint8).tobytes()
    files[datasets.LABELS] = labels
    archives[0] = replace(archives[0], size=len(labels), md5=hashlib.md5(labels).hexdigest())
    return files, replace(CIFAR10, archives=tuple(archives))


def made_cifar(name: str, images: int) -> dict[str, bytes]:
    """Make the archive of a CIFAR with `images` in each batch, pickled as Python 2 did, and its class names."""
    row = datasets.DATASETS[name]
    if name == "cifar10":
        labels, meta = "labels", ("batches.meta", "label_names")
        names, batches = CIFAR10.class_names, [Path(archive.name).stem for archive in CIFAR10.archives[1:]]
    else:
        labels, meta = "fine_labels", ("meta", "fine_label_names")
        names, batches = tuple(f"class {k}" for k in range(100)), ["train", "test"]
    files: dict[str, Any] = {meta[0]: {meta[1]: list(names)}}
    for seed, batch in enumerate(batches):
        rows, values = made_rows(seed, images)
        files[batch] = {"data": rows, labels: values.tolist()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file, contents in files.items():
            data = pickle.dumps(contents, protocol=2)
            member = tarfile.TarInfo(f"{row.folder}/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {row.archives[0].name: gzip.compress(buffer.getvalue(), mtime=0)}


def made(name: str, images: int = 8) -> dict[str, bytes]:
    """Make the archives of dataset `name` in its publisher's format, with `images` in each file."""
    if datasets.DATASETS[name].format == "idx":
        return made_archives(images, images)
    return made_cifar(name, images)


def write_raw(project: Path) -> Path:
    folder = project / "data/raw/FashionMNIST/raw"
    folder.mkdir(parents=True)
    for name, data in made_archives().items():
        (folder / name).write_bytes(data)
        (folder / name).with_suffix("").write_bytes(gzip.decompress(data))
    return folder
