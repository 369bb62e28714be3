"""The datasets that the pipeline knows: one row each in `DATASETS`.

A row says which archives make the dataset and in which format, where they come from, where torchvision looks for them
under `data/raw`, and what the classes are called. MD5 sums and mirrors are those of torchvision 0.29 (a test compares
them), which has them from the datasets' publishers. The MD5 sums of CIFAR-10's binary version are those of the files
in its publisher's cifar-10-binary.tar.gz.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RAW = Path("data/raw")
LABELS = "labels.bin"  # of all batches that a mirror has as sprites, a byte each
CIFAR_ROW = 1 + 3 * 32 * 32  # bytes of an image in CIFAR-10's binary version: its label, and its pixels


@dataclass(frozen=True)
class Archive:
    """One file of a dataset as its publisher ships it, .gz, .tar.gz or .bin."""

    name: str
    size: int  # bytes
    md5: str
    sprite: str = ""  # the file that a mirror has of a .bin file: its images in one picture, but without their labels
    first_label: int = 0  # where in LABELS those begin

    @property
    def delivered(self) -> str:
        """The name of the file that a source has."""
        return self.sprite or self.name


@dataclass(frozen=True)
class Dataset:
    format: Literal["idx", "digits", "cifar10", "cifar10_binary", "cifar100", "files"]
    archives: tuple[Archive, ...] = ()
    folder: str = ""  # below data/raw, of the unpacked files
    members: tuple[str, ...] = ()  # of that folder, in a .tar.gz archive; a .gz archive holds one file of its own name
    class_names: tuple[str, ...] = ()  # empty: the files say
    mirrors: tuple[str, ...] = ()  # base URLs, tried in this order
    package: str = ""  # the installed package and the folder inside it that ship the archives, instead of mirrors
    instead: "Dataset | None" = None  # the same images in other archives, which DATA_MIRROR may have instead of the one

    def forms(self) -> Iterator["Dataset"]:
        """Yield this dataset, and what may be there instead."""
        yield self
        if self.instead:
            yield self.instead

    def files(self) -> Iterator[Path]:
        """Yield every file below data/raw that unpacking the archives makes, and the archives beside them."""
        for form in self.forms():
            for archive in form.archives:
                path = kept(archive.name, Path(form.folder))
                yield path
                if path.suffix == ".gz":
                    yield from (Path(form.folder, name) for name in form.members or (path.stem,))


def kept(archive: str, folder: Path) -> Path:
    """Return where torchvision looks for an archive: in the folder of the unpacked files, or beside that folder."""
    return (folder.parent if archive.endswith(".tar.gz") else folder) / archive


DATASETS = {
    "fashion_mnist": Dataset(
        format="idx",
        archives=(
            Archive("train-images-idx3-ubyte.gz", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            Archive("train-labels-idx1-ubyte.gz", 29515, "25c81989df183df01b3e8a0aad5dffbe"),
            Archive("t10k-images-idx3-ubyte.gz", 4422102, "bef4ecab320f06d8554ea6380940ec79"),
            Archive("t10k-labels-idx1-ubyte.gz", 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        folder="FashionMNIST/raw",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    ),
    "mnist": Dataset(
        format="idx",
        archives=(
            Archive("train-images-idx3-ubyte.gz", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            Archive("train-labels-idx1-ubyte.gz", 28881, "d53e105ee54ea40749a09fcbcd1e9432"),
            Archive("t10k-images-idx3-ubyte.gz", 1648877, "9fb629c4189551a2d022fa330f9573f3"),
            Archive("t10k-labels-idx1-ubyte.gz", 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        folder="MNIST/raw",
        class_names=(
            "0 - zero",
            "1 - one",
            "2 - two",
            "3 - three",
            "4 - four",
            "5 - five",
            "6 - six",
            "7 - seven",
            "8 - eight",
            "9 - nine",
        ),
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    ),
    "kmnist": Dataset(
        format="idx",
        archives=(
            Archive("train-images-idx3-ubyte.gz", 18165135, "bdb82020997e1d708af4cf47b453dcf7"),
            Archive("train-labels-idx1-ubyte.gz", 29497, "e144d726b3acfaa3e44228e80efcd344"),
            Archive("t10k-images-idx3-ubyte.gz", 3041136, "5c965bf0a639b31b8f53240b1b52f4d7"),
            Archive("t10k-labels-idx1-ubyte.gz", 5120, "7320c461ea6c1c855c0b718fb2a4b134"),
        ),
        folder="KMNIST/raw",
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    ),
    "cifar10": Dataset(
        format="cifar10",
        archives=(Archive("cifar-10-python.tar.gz", 170498071, "c58f30108f718f92721af3b95e74349a"),),
        folder="cifar-10-batches-py",
        members=("batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "readme.html", "test_batch"),
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        instead=Dataset(
            format="cifar10_binary",
            archives=(
                Archive(LABELS, 60000, "f8f5d533d58aebceda8f45f2593c8bbf"),
                Archive("data_batch_1.bin", 30730000, "5dd7e06a14cb22eb9f671a540d1b7c25", "data_batch_1.webp", 0),
                Archive("data_batch_2.bin", 30730000, "5ea93a67294ea407fff1d09f752e9692", "data_batch_2.webp", 10000),
                Archive("data_batch_3.bin", 30730000, "942cd6a4bcdd0dd3c604fbe906cb4421", "data_batch_3.webp", 20000),
                Archive("data_batch_4.bin", 30730000, "ae636b3ba5c66a11e91e8cb52e771fcb", "data_batch_4.webp", 30000),
                Archive("data_batch_5.bin", 30730000, "53f37980c15c3d472c316c40844f3f0d", "data_batch_5.webp", 40000),
                Archive("test_batch.bin", 30730000, "803d5f7f4d78ea53de84dbe85f74fb6d", "test_batch.webp", 50000),
            ),
            folder="cifar-10-batches-bin",
            class_names=(
                "airplane",
                "automobile",
                "bird",
                "cat",
                "deer",
                "dog",
                "frog",
                "horse",
                "ship",
                "truck",
            ),
        ),
    ),
    "cifar100": Dataset(
        format="cifar100",
        archives=(Archive("cifar-100-python.tar.gz", 169001437, "eb9058c3a382ffc7106e4002c42a8d85"),),
        folder="cifar-100-python",
        members=("file.txt~", "meta", "test", "train"),
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
    ),
    "digits": Dataset(
        format="digits",
        archives=(Archive("digits.csv.gz", 57523, "9b335364a7bfd63947c7480a5bd51f2d"),),
        folder="digits",
        class_names=tuple("0123456789"),
        package="sklearn/datasets/data",
    ),
    "csv": Dataset(format="files"),
    "folder": Dataset(format="files"),
}
