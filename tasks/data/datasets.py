"""The datasets that the pipeline knows: one row each in `DATASETS`.

A row says which archives make the dataset and in which format, where they come from, where torchvision looks for them
under `data/raw`, and what the classes are called. MD5 sums and mirrors are those of torchvision 0.29 (a test compares
them), which has them from the datasets' publishers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RAW = Path("data/raw")


@dataclass(frozen=True)
class Archive:
    """One file of a dataset as its publisher ships it, .gz or .tar.gz."""

    name: str
    size: int  # bytes
    md5: str


@dataclass(frozen=True)
class Dataset:
    format: Literal["idx", "digits", "cifar10", "cifar100", "files"]
    archives: tuple[Archive, ...] = ()
    folder: str = ""  # below data/raw, of the unpacked files
    members: tuple[str, ...] = ()  # of that folder, in a .tar.gz archive; a .gz archive holds one file of its own name
    class_names: tuple[str, ...] = ()  # empty: the files say
    mirrors: tuple[str, ...] = ()  # base URLs, tried in this order
    package: str = ""  # the installed package and the folder inside it that ship the archives, instead of mirrors

    def files(self) -> Iterator[Path]:
        """Yield every file below data/raw that unpacking the archives makes, and the archives beside them."""
        for archive in self.archives:
            path = kept(archive.name, Path(self.folder))
            yield path
            yield from (Path(self.folder, name) for name in self.members or (path.stem,))


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
