"""The prepared dataset in data/prepared: arrays that a memory map reads, and a JSON that describes them.

{train,validation,test}_images.npy   uint8 [N, H, W, C], C order
{train,validation,test}_labels.npy   int64 [N]
{train,validation,test}_files.csv    path of each image below download.path; only where images are files of their own
dataset.json                         `Card`
"""

import csv
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from tasks.harness.records import read_record, write_json

FOLDER = Path("data/prepared")

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
ImageId = tuple[SplitName, int]  # an image: the number `int` of a split
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Pixels = Annotated[int, Field(ge=1, le=4096)]
ImageShape = Annotated[list[Pixels], Field(min_length=3, max_length=3)]  # [H, W, C]
PerChannel = list[Annotated[float, Field(allow_inf_nan=False)]]


def _distinct(names: list[str]) -> list[str]:
    if not names or len(set(names)) < len(names):
        raise ValueError("should be at least one name, none of them twice")
    return names


ClassNames = Annotated[list[str], AfterValidator(_distinct)]


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Choose up to `most` of `count` indices, evenly spread: files are often sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


@dataclass(frozen=True)
class Card:
    """What data/prepared holds."""

    name: str
    class_names: ClassNames
    image_shape: ImageShape
    mean: PerChannel  # of the training images scaled to [0, 1]
    std: PerChannel
    sizes: dict[SplitName, int]
    sources: dict[str, str]  # file below data/raw -> "sha256:..." of what was decoded
    resize: Literal["stretch", "crop"]  # how an image file of another size is made to fit: stretch or crop
    skipped: dict[str, str]  # image file that could not be read -> why

    def write(self, folder: Path) -> None:
        write_json(folder / "dataset.json", asdict(self))

    @classmethod
    def read(cls, folder: Path = FOLDER) -> "Card":
        return read_record(folder / "dataset.json", cls)


@dataclass(frozen=True)
class Split:
    """Images `uint8 [N, H, W, C]` and labels `int64 [N]`, memory-mapped."""

    images: Images
    labels: Labels

    @classmethod
    def read(cls, name: SplitName, folder: Path = FOLDER) -> "Split":
        # Copy-on-write: torch wants arrays it may write to, and the files stay as they are.
        images = np.load(folder / f"{name}_images.npy", mmap_mode="c")
        return cls(images, np.load(folder / f"{name}_labels.npy"))


def names(images: AbstractSet[ImageId], folder: Path = FOLDER) -> dict[ImageId, str]:
    """Say what a person calls these images: by their paths, else by split and index, `train[7]`."""
    named: dict[ImageId, str] = {}
    for split in {split for split, _ in images}:
        try:
            with (folder / f"{split}_files.csv").open(newline="", encoding="utf-8") as file:
                paths = ((split, index, path) for index, (path,) in enumerate(csv.reader(file)))
                named |= {(split, index): path for split, index, path in paths if (split, index) in images}
        except FileNotFoundError:
            named |= {(owner, index): f"{owner}[{index}]" for owner, index in images if owner == split}
    return named
