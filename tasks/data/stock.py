"""Your own images, where they lie: which there are, what their labels say, and a hash of what is in each.

`download` takes stock and copies nothing; what depends on the images depends on what it wrote:

data/raw/stock.json    `Stock`, without its items
data/raw/images.csv    path, class, split, sha256: a row an image, in the order of their paths
"""

import csv
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from serving.images import SUFFIXES
from tasks.data import annotations, folders
from tasks.data.datasets import RAW
from tasks.data.item import SPLITS, Item
from tasks.harness.code import sha256
from tasks.harness.errors import StageError
from tasks.harness.records import read_json, write_json
from tasks.params.download import Download

AT_A_TIME = 4096  # files
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in a path: control characters, and bytes that are no UTF-8


@dataclass(frozen=True)
class Listed(Iterable[Item]):
    """The rows of images.csv, read anew each time they are gone through: a million need not be held."""

    file: Path

    def __iter__(self) -> Iterator[Item]:
        with self.file.open(newline="", encoding="utf-8") as file:
            for path, label, split, sha256 in csv.reader(file):
                yield Item(path, label, SPLITS.get(split), sha256)


@dataclass(frozen=True)
class Stock:
    """All the images."""

    root: str
    class_names: list[str]
    items: Iterable[Item]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        write_json(folder / "stock.json", {"root": self.root, "class_names": self.class_names})
        with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows((item.path, item.label, item.split or "", item.sha256) for item in self.items)

    @classmethod
    def read(cls, folder: Path = RAW) -> "Stock":
        described = read_json(folder / "stock.json")
        return cls(described["root"], described["class_names"], Listed(folder / "images.csv"))


def take(params: Download) -> Stock:
    """List the images of dataset `csv` or `folder` and hash them.

    Raises:
        StageError: there are none, or something about them is wrong; the message lists everything that is.
    """
    root = Path(params.path)
    if not root.is_dir():
        raise StageError(
            f"download.path = {params.path!r} is no folder: it is where the images of dataset {params.dataset} lie, "
            "data/inbox for example"
        )
    class_names, items = annotations.read(root, params.csv) if params.dataset == "csv" else folders.read(root)
    if not items:
        raise StageError(f"{root} holds no images: put files of {', '.join(SUFFIXES)} there, or change download.path")
    if odd := [repr(item.path) for item in items if UNWRITABLE.search(item.path)]:
        raise StageError(f"{root}: names of files that cannot be written down; rename them:\n  " + "\n  ".join(odd))
    if odd := [repr(name) for name in class_names if UNWRITABLE.search(name)]:
        raise StageError(f"{root}: names of classes that cannot be written down; rename them: {', '.join(odd)}")
    items.sort(key=lambda item: item.path)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), AT_A_TIME):
            part = slice(start, start + AT_A_TIME)
            items[part] = pool.map(lambda item: replace(item, sha256=sha256(root / item.path)), items[part])
    return Stock(params.path, class_names, items)
