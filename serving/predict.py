"""Classify image files, and those in folders, with the ONNX model alone.

Reads:  models/model.onnx (or --model), image files
Writes: nothing but what it prints, or the table OUT: serving/folder/run.py
Run:    python -m serving.predict IMAGE..., or --folder FOLDER --out OUT; or with IMAGE, FOLDER, OUT and MODEL in the
        environment, as make predict does
"""

import argparse
import io
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np

from serving.champion import CHAMPION, chosen
from serving.files import printable
from serving.folder import run
from serving.folder.rows import TOP
from serving.folder.run import FolderError
from serving.folder.walk import walk
from serving.images import SUFFIXES, ImageError
from serving.model import Predictor
from serving.session import SessionError

DEFAULT = "models/model.onnx"
DESCRIPTION = """\
Classify image files: those that are named, and those in the folders that are
named and below, hidden ones left out.

Where no image is named, the variable IMAGE of the environment says which: one
path, blanks and all, if there is such a file or folder; else several, separated
and quoted as in a shell: a.png 'b c.png'.

With --folder and --out the images in a folder and below are classified into a
table, one row an image, also a million; stopped or killed, the same command
goes on. It ends with 0 once the table is there: bad images have their reason
in it.
"""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))  # which quotes the command line, where a shell may have put any file name


class Stopped(BaseException):
    """SIGINT or SIGTERM, `number`."""

    def __init__(self, number: int) -> None:
        self.number = number


def main() -> int:
    arguments, names = _parse()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # in a locale that lacks a letter of a class name
    try:
        path, content = chosen(arguments.model)
        if arguments.folder:
            return _folder(arguments, path, content)
        return _images(Predictor(path, arguments.provider, content=content), names)
    except (SessionError, FolderError) as error:
        sys.exit(f"predict: {printable(str(error))}")
    except OSError as error:  # no fault of an image's, which is an ImageError
        sys.exit(f"predict: {printable(f'{error.filename}: {error.strerror}')}")


def _images(predictor: Predictor, names: list[str]) -> int:
    failed = False
    for path in chain.from_iterable(map(find, names)):
        try:
            if isinstance(path, ImageError):
                raise path
            print(f"{printable(str(path))}: {answer(predictor, path)}")
        except ImageError as error:
            print(f"predict: {printable(str(error))}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


def _folder(arguments: argparse.Namespace, path: Path, content: bytes) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    predictor = Predictor(path, arguments.provider, threads=1, content=content)
    try:
        done = run.run(
            predictor,
            sha256(content).hexdigest(),
            Path(arguments.folder),
            Path(arguments.out),
            arguments.threads,
            arguments.batch_size,
        )
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        print(f"\npredict: stopped by {name}; the same command goes on", file=sys.stderr)
        return 128 + stopped.number
    print(printable(done))
    return 0


def _stop(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once, whatever hangs
    raise Stopped(number)


def answer(predictor: Predictor, path: Path) -> str:
    """Say what an image shows: the most probable classes.

    Raises:
        ImageError: it is none that can be classified.
        SessionError: the model does not run.
    """
    (probabilities,) = predictor(predictor.image(path)[np.newaxis])
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
    """Yield the image files in a folder and below, sorted, after why folders cannot be looked into."""
    found = sorted((Path(root, one.path), one.error) for one in walk(Path(root)))
    yield from (ImageError(f"{path}: {error}") for path, error in found if error)
    if not found:
        yield ImageError(f"{root}: no image in this folder or below; images are {', '.join(SUFFIXES)} files")
    yield from (path for path, error in found if not error)


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
    parser.add_argument("--folder", help="of images to classify into the table --out")
    parser.add_argument("--out", metavar="labels.parquet", help="the table: a new .parquet or .csv file")
    parser.add_argument(
        "--model", default=os.environ.get("MODEL") or DEFAULT, help=f"a path, or {CHAMPION} (default: {DEFAULT})"
    )
    parser.add_argument("--provider", default="auto", help="ONNX Runtime's execution provider (default: auto)")
    parser.add_argument("--threads", type=_count, default=0, help="for a folder; default: one for each core")
    parser.add_argument("--batch-size", type=_count, default=0, help="for a folder; default: 32, fewer of large images")
    arguments = parser.parse_args()
    names = arguments.images
    if not (names or arguments.folder or arguments.out):
        arguments.folder, arguments.out = os.environ.get("FOLDER"), os.environ.get("OUT")
        try:
            names = _split(os.environ.get("IMAGE", ""))
        except ValueError as error:
            parser.error(str(error))
    if names and arguments.folder:
        parser.error("either images or a folder: --folder takes all that are in one")
    if bool(arguments.folder) != bool(arguments.out):
        parser.error("a folder and a table belong together: make predict FOLDER=photos OUT=labels.parquet")
    if not (names or arguments.folder):
        parser.error("which image? make predict IMAGE=path.png, or python -m serving.predict path.png")
    return arguments, names


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


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
