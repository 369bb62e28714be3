"""The datasets that the pipeline knows: one row each in `DATASETS`.

A row says which archives make the dataset, where they come from, where torchvision looks for them under `data/raw`, and
what the classes are called. MD5 sums and mirrors are those of torchvision 0.29 (a test compares them), which has them
from the datasets' publishers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One gzip file of a dataset, as its publisher ships it."""

    name: str
    size: int  # bytes
    md5: str


@dataclass(frozen=True)
class Dataset:
    archives: tuple[Archive, ...]
    folder: str  # below data/raw
    class_names: tuple[str, ...]
    mirrors: tuple[str, ...] = ()  # base URLs, tried in this order
    package: str = ""  # the installed package and the folder inside it that ship the archives, instead of mirrors


DATASETS = {
    "fashion_mnist": Dataset(
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
    "digits": Dataset(
        archives=(Archive("digits.csv.gz", 57523, "9b335364a7bfd63947c7480a5bd51f2d"),),
        folder="digits",
        class_names=tuple("0123456789"),
        package="sklearn/datasets/data",
    ),
}
