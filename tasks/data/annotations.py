"""A CSV file that says which class each image is of, and a file that names the classes."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from serving.files import open_regular
from tasks.data.item import SPLITS, Item
from tasks.harness.errors import StageError
from tasks.params.download import Csv

CLASSES = "classes.txt"  # beside the annotations: a class a line, in the order of their numbers
CLASSES_AT_MOST = 1000  # that are known by a number alone, or as many as there are images
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e\d+)?", re.IGNORECASE)


def read(root: Path, params: Csv) -> tuple[list[str], list[Item]]:
    """List what an annotations file names: an image and its class a row, as in the tutorial's CustomImageDataset."""
    file = root / params.file
    try:
        text = _read_text(file)
    except FileNotFoundError:
        raise StageError(f"{file} is missing: download.csv.file names the annotations in download.path") from None
    named = _class_file(root / CLASSES)
    wrong: list[str] = []
    items: dict[str, Item] = {}
    for line, row in _rows(text, file, params, wrong):
        given, label, split = row
        path = str(Path(given))  # ./a.png and a.png are one file
        target = root / path
        if not given or Path(path).is_absolute() or ".." in Path(path).parts:
            wrong.append(f"line {line}: image {given!r} is no path below {root}")
        elif not target.is_file():
            wrong.append(f"line {line}: image {path}: {'not a regular file' if target.exists() else 'no such file'}")
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


def _rows(text: str, file: Path, params: Csv, wrong: list[str]) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Yield line number, and image, label and split, of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])] if params.header else None
        wanted = {"image": params.image, "label": params.label, "split": params.split}
        columns = [_column(name, header, file, key) for key, name in wanted.items()]
        for row in reader:
            if not any(row):
                continue
            if len(row) <= max(columns):
                wrong.append(f"line {reader.line_num}: {len(row)} of at least {max(columns) + 1} values")
                continue
            image, label, split = (row[column].strip() if column >= 0 else "" for column in columns)
            yield reader.line_num, (image, unicodedata.normalize("NFC", label), split)
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
    if header.count(wanted) > 1:
        raise StageError(
            f"{file} has {header.count(wanted)} columns {wanted!r} (download.csv.{key}): name one by number"
        )
    return header.index(wanted)


def _class_file(path: Path) -> list[str]:
    lines = unicodedata.normalize("NFC", _read_text(path)).splitlines() if path.exists() else []
    names = [name.strip() for name in lines if name.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StageError(f"{path} names {', '.join(twice)} more than once")
    return names


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8-sig")
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
