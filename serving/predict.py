"""Classify image files, and those in folders, with the ONNX model alone.

Reads:  models/model.onnx (or --model), image files
Run:    python -m serving.predict IMAGE..., or with IMAGE in the environment, as make predict does
"""

import argparse
import io
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np

from serving.files import printable
from serving.images import SUFFIXES, ImageError, decode
from serving.model import Predictor
from serving.session import SessionError

TOP = 3
DESCRIPTION = """\
Classify image files: those that are named, and those in the folders that are named and below, hidden ones left out.

Where no image is named, the variable IMAGE of the environment says which: one path, blanks and all, if there is such a
file or folder; else several, separated and quoted as in a shell: a.png 'b c.png'.
"""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))  # which quotes the command line, where a shell may have put any file name


def main() -> int:
    arguments, names = _parse()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # in a locale that lacks a letter of a class name
    failed = False
    try:
        predictor = Predictor(arguments.model, arguments.provider)
        for path in chain.from_iterable(map(find, names)):
            try:
                if isinstance(path, ImageError):
                    raise path
                print(f"{printable(str(path))}: {answer(predictor, path)}")
            except ImageError as error:
                print(f"predict: {printable(str(error))}", file=sys.stderr)
                failed = True
    except SessionError as error:
        sys.exit(f"predict: {printable(str(error))}")
    return 1 if failed else 0


def answer(predictor: Predictor, path: Path) -> str:
    """Say what an image shows: the most probable classes.

    Raises:
        ImageError: it is none that can be classified.
        SessionError: the model does not run.
    """
    (probabilities,) = predictor(decode(path, predictor.image_shape, predictor.resize)[np.newaxis])
    order = np.argsort(-probabilities)[:TOP]
    best, *others = (f"{printable(predictor.class_names[k])} {probabilities[k]:.1%}" for k in order)
    return f"{best}  (then {', '.join(others)})" if others else best


def find(name: str) -> Iterator[Path | ImageError]:
    """Yield the image files that `name` stands for, and why others cannot be looked for."""
    if not name:
        yield ImageError("an image has an empty name; a path is expected")
    elif _is_folder(name):
        yield from _below(name)
    else:
        yield Path(name)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # decode says why
        return False


def _below(root: str) -> Iterator[Path | ImageError]:
    """Yield the image files in a folder and below, sorted; a folder that links lead to again is entered once."""
    found: list[Path] = []
    seen: set[str] = set()
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=unreadable.append, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(child for child in folders if not child.startswith("."))
        found += [Path(folder, file) for file in files if _is_image(file)]
    yield from (ImageError(f"{error.filename}: {error.strerror}") for error in unreadable)
    if not found and not unreadable:
        yield ImageError(f"{root}: no image in this folder or below; images are {', '.join(SUFFIXES)} files")
    yield from sorted(found)


def _is_image(file: str) -> bool:
    return Path(file).suffix.lower() in SUFFIXES and not file.startswith(".")


def _parse() -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the names of files and folders."""
    parser = Parser(
        prog="python -m serving.predict",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="a PNG, JPEG, WebP or BMP file, or a folder; after -- a name may begin with a dash",
    )
    parser.add_argument("--model", type=Path, default=Path("models/model.onnx"), help="default: models/model.onnx")
    parser.add_argument("--provider", default="auto", help="ONNX Runtime's execution provider (default: auto)")
    arguments = parser.parse_args()
    try:
        names = arguments.images or _split(os.environ.get("IMAGE", ""))
    except ValueError as error:
        parser.error(str(error))
    if not names:
        parser.error("which image? make predict IMAGE=path.png, or python -m serving.predict path.png")
    return arguments, names


def _split(text: str) -> list[str]:
    """Take a text for one path, if there is such a file or folder, else for several as a shell would.

    Raises:
        ValueError: it is neither.
    """
    if os.path.lexists(text):
        return [text]
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"IMAGE={text}: there is no such file, and several are no list: {error}") from None


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGPIPE):  # Ctrl-C, and `| head`, end it without a traceback
        signal.signal(number, signal.SIG_DFL)
    sys.exit(main())
