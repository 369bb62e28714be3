"""Your own images, where they lie: which there are, what their labels say, and a hash of what is in each.

`download` takes stock and copies nothing; what depends on the images depends on what it wrote:

data/raw/stock.json    `Stock`, without its items
data/raw/images.csv    path, class, split, sha256: a row an image, in the order of their paths
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from serving.images import SUFFIXES
from tasks import params
from tasks.datasets import RAW
from tasks.inputs import sha256
from tasks.prepared import SplitName
from tasks.stage import StageError, read_json, write_json

AT_A_TIME = 4096  # files
CLASSES_AT_MOST = 1000  # that are known by a number alone, or as many as there are images
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in a path: control characters, and bytes that are no UTF-8
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e\d+)?", re.IGNORECASE)
CLASSES = "classes.txt"  # beside the annotations: a class a line, in the order of their numbers
SPLITS: dict[str, SplitName] = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Item:
    """One image file and what is known of it."""

    path: str  # below the root
    label: str  # a class name
    split: SplitName | None  # None: params.yaml decides
    sha256: str = ""


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


def take(p: params.Download) -> Stock:
    """List the images of dataset `csv` or `folder` and hash them.

    Raises:
        StageError: there are none, or something about them is wrong; the message lists everything that is.
    """
    root = Path(p.path)
    if not root.is_dir():
        raise StageError(f"download.path = {p.path!r} is no folder: it is where the images of dataset {p.dataset} lie")
    class_names, items = _annotated(root, p.csv) if p.dataset == "csv" else _in_folders(root)
    if not items:
        raise StageError(f"{root} holds no images: put files of {', '.join(SUFFIXES)} there, or change download.path")
    if odd := [repr(item.path) for item in items if UNWRITABLE.search(item.path)]:
        raise StageError(f"{root}: names of files that cannot be written down; rename them:\n  " + "\n  ".join(odd))
    items.sort(key=lambda item: item.path)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), AT_A_TIME):
            part = slice(start, start + AT_A_TIME)
            items[part] = pool.map(lambda item: replace(item, sha256=sha256(root / item.path)), items[part])
    return Stock(p.path, class_names, items)


def _in_folders(root: Path) -> tuple[list[str], list[Item]]:
    """List `<class>/*.png`, or `train/<class>/*.png` and the same of test and val (torchvision's ImageFolder)."""
    if (root / "train").is_dir():
        places: dict[Path, SplitName | None] = {root / name: SPLITS[name] for name in SPLITS if (root / name).is_dir()}
        others = [path for path in root.iterdir() if path not in places and any(map(_is_image, path.rglob("*")))]
        if others:
            raise StageError(
                f"{root}: beside train/ there are images in {', '.join(sorted(path.name for path in others))}, "
                f"but a split is one of {', '.join(SPLITS)}; if train is a class, put all classes into train/"
            )
    else:
        places = {root: None}
    files = [
        (path, path.relative_to(place).parts, split)
        for place, split in places.items()
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    items = [
        Item(str(path.relative_to(root)), parts[0], split)
        for path, parts, split in files
        if _is_image(path) and len(parts) > 1
    ]
    if barren := sorted({parts[0] for _, parts, _ in files if len(parts) > 1} - {item.label for item in items}):
        raise StageError(f"{root}: no images of {', '.join(barren)}: images are {', '.join(SUFFIXES)} files")
    _say_what_is_left_out([path for path, parts, _ in files if not _is_image(path) or len(parts) == 1])
    class_names = sorted({item.label for item in items if item.split in (None, "train")})
    if unknown := sorted({item.label for item in items} - set(class_names)):
        raise StageError(f"{root}: no training images of {', '.join(unknown)}; the classes of train/ are {class_names}")
    return class_names, items


def _say_what_is_left_out(files: list[Path]) -> None:
    kinds = Counter(
        "in no folder of a class" if _is_image(file) else file.suffix or "without a suffix" for file in files
    )
    if kinds:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        print(f"Left out: {listed}; images are {', '.join(SUFFIXES)} files in a folder for their class", flush=True)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _annotated(root: Path, p: params.Csv) -> tuple[list[str], list[Item]]:
    """List what an annotations file names: an image and its class a row, as in the tutorial's CustomImageDataset."""
    file = root / p.file
    try:
        text = _read(file)
    except FileNotFoundError:
        raise StageError(f"{file} is missing: download.csv.file names the annotations in download.path") from None
    named = _class_file(root / CLASSES)
    wrong: list[str] = []
    items: dict[str, Item] = {}
    for line, row in _rows(text, file, p, wrong):
        path, label, split = row
        target = root / path
        if not path or Path(path).is_absolute() or ".." in Path(path).parts:
            wrong.append(f"line {line}: image {path!r} is no path below {root}")
        elif not target.is_file():
            wrong.append(f"line {line}: image {path}: no such file")
        elif path in items:
            wrong.append(f"line {line}: image {path} is there twice")
        if not label:
            wrong.append(f"line {line}: image {path} has no label")
        elif named and label not in named and not (label.isdecimal() and int(label) < len(named)):
            wrong.append(f"line {line}: label {label!r} is no class of {CLASSES}, nor a number below {len(named)}")
        if split and split not in SPLITS:
            wrong.append(f"line {line}: split {split!r} should be {', '.join(SPLITS)} or empty")
        items[path] = Item(path, label, SPLITS.get(split))
    if wrong:
        found = "1 mistake" if len(wrong) == 1 else f"{len(wrong)} mistakes"
        raise StageError(f"{file} is refused, {found}:\n" + "\n".join(f"  {reason}" for reason in wrong))
    return _named(list(items.values()), named, file)


def _rows(text: str, file: Path, p: params.Csv, wrong: list[str]) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Yield line number, and image, label and split, of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])] if p.header else None
        wanted = {"image": p.image, "label": p.label, "split": p.split}
        columns = [_column(name, header, file, key) for key, name in wanted.items()]
        for row in reader:
            if not any(row):
                continue
            if len(row) <= max(columns):
                wrong.append(f"line {reader.line_num}: {len(row)} of at least {max(columns) + 1} values")
                continue
            image, label, split = (row[column].strip() if column >= 0 else "" for column in columns)
            yield reader.line_num, (image, label, split)
    except csv.Error as error:
        wrong.append(f"line {reader.line_num}: {error}")


def _column(wanted: str | int | None, header: Sequence[str] | None, file: Path, key: str) -> int:
    if wanted is None:
        return -1
    if isinstance(wanted, int):
        return wanted
    if header is None or wanted not in header:
        there = (
            f"the columns, between commas, are {', '.join(header)}"
            if header is not None
            else "there is no header: name it by number"
        )
        raise StageError(f"{file} has no column {wanted!r} (download.csv.{key}); {there}")
    return header.index(wanted)


def _class_file(path: Path) -> list[str]:
    names = [name.strip() for name in _read(path).splitlines() if name.strip()] if path.exists() else []
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StageError(f"{path} names {', '.join(twice)} more than once")
    return names


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None


def _named(items: list[Item], named: list[str], file: Path) -> tuple[list[str], list[Item]]:
    """Turn labels that are numbers into the names of their classes, which are the numbers where there are no names."""
    labels = {item.label for item in items}
    if not named and all(label.isdecimal() for label in labels):
        most = max(map(int, labels), default=-1)
        if most >= max(CLASSES_AT_MOST, len(items)):
            raise StageError(
                f"{file}: label {most} of {len(items)} images: numbers count the classes from 0; "
                f"if they are names, list them in {CLASSES}"
            )
        named = [str(number) for number in range(most + 1)]
    elif not named and any(label.isdecimal() for label in labels):
        if odd := sorted(label for label in labels if NUMBER.fullmatch(label) and not label.isdecimal()):
            raise StageError(f"{file}: {', '.join(odd)} among labels that are numbers: they count the classes from 0")
        named = sorted(labels)
    elif not named:
        named = sorted(labels)
    return named, [item if item.label in named else replace(item, label=named[int(item.label)]) for item in items]
