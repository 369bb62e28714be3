"""Classify a folder of image files into a table, which appears under its name once it is whole.

Reads:  the image files in a folder and below
Writes: OUT, a .parquet or .csv file; until it is whole .OUT.unfinished beside it, with which the same command goes on
"""

import os
import sqlite3
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path

from serving.files import printable
from serving.folder import table
from serving.folder.journal import Busy, Journal, OtherRun
from serving.folder.progress import Progress
from serving.folder.rows import Row, classify
from serving.folder.walk import Found, walk
from serving.images import SUFFIXES
from serving.model import Predictor

BATCH = 32  # images, if BATCH_BYTES hold so many; more took memory and no less time: docs/deployment.md
BATCH_BYTES = 4 * 2**20
AHEAD = 2  # batches for each thread, the one at which it is among them


class FolderError(Exception):
    """A folder cannot be classified, or not now."""


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(predictor: Predictor, sha256: str, folder: Path, out: Path, threads: int = 0, batch_size: int = 0) -> str:
    """Classify the images in a folder and below, write the table `out`, and return what came of it.

    Args:
        predictor: of one thread on the CPU, as each of `threads` runs it on batches of its own.
        sha256: of the model.
        threads: 0: one for each core.
        batch_size: images; 0: 32, or fewer of large images.

    Raises:
        FolderError: why not; what was found out so far is kept.
        SessionError: the model does not run; likewise.
    """
    _check(out)
    watched = Watched(folder)
    about = {"model": sha256, "folder": os.path.realpath(folder), "provider": predictor.provider}
    unfinished, partial = out.with_name(f".{out.name}.unfinished"), out.with_name(f".{out.name}.partial")
    try:
        with Journal(unfinished, about) as journal:
            _check(out)  # once more, as whoever had the journal may have written it
            progress = _listed(journal, watched)
            size = batch_size or max(1, min(BATCH, BATCH_BYTES // prod(predictor.image_shape)))
            for rows in _classified(predictor, watched, journal.pending(size), threads or cores()):
                journal.add(rows)
                progress.add(len(rows), sum(row.error is not None for row in rows))
            progress.end()
            table.write(partial, out.suffix.lower(), journal.rows(), {"model_sha256": sha256})
            _check(out)
            partial.replace(out)
            journal.remove()
    except Busy:
        raise FolderError(f"another process is at {out}; wait for it, or name another OUT") from None
    except OtherRun as error:
        raise FolderError(
            f"{out} was begun with {error}; go on with that, or remove {unfinished} to begin anew"
        ) from None
    except sqlite3.OperationalError as error:
        raise FolderError(f"{unfinished}: {error}; what is done is kept, the same command goes on") from None
    except sqlite3.DatabaseError as error:
        raise FolderError(f"{unfinished}: {error}; remove it to begin anew") from None
    except OSError as error:
        raise FolderError(f"{error.filename or partial}: {error.strerror}") from None
    return f"{out}: {progress}"


def _check(out: Path) -> None:
    if out.suffix.lower() not in table.SUFFIXES:
        raise FolderError(f"{out}: a name that ends in {' or '.join(table.SUFFIXES)} is expected")
    if not out.parent.is_dir():
        raise FolderError(f"{out}: there is no folder {out.parent} to write it to")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise FolderError(f"{out}: {out.parent} is a folder that cannot be written to")
    if os.path.lexists(out):
        raise FolderError(f"{out} exists already; remove it, or name another OUT")


class Watched:
    """A folder that has to remain the one that it was: what is not mounted looks empty, or is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is = self._identity()

    def check(self) -> None:
        if self._identity() != self._is:
            raise FolderError(f"{self.path} is another folder than before; put it back, and the same command goes on")

    def _identity(self) -> tuple[int, int]:
        try:
            os.scandir(self.path).close()
            status = self.path.stat()
        except OSError as error:
            raise FolderError(f"{self.path}: {error.strerror}") from None
        return status.st_dev, status.st_ino


def _listed(journal: Journal, watched: Watched) -> Progress:
    """List the images in a folder, and tell how many there are."""
    print(f"predict: looking through {printable(str(watched.path))}", file=sys.stderr, flush=True)
    journal.take(_images(watched))
    total, done, bad = journal.counts()
    kept = f", {done:,} of them done before" if done else ""
    print(f"predict: {total:,} images{kept}", file=sys.stderr, flush=True)
    return Progress(total, done, bad)


def _images(watched: Watched) -> Iterator[Found]:
    """Yield what is in a folder, if that is anything: the end of a disk is no reason to forget what was done."""
    found = None
    for found in walk(watched.path):
        yield found
    watched.check()
    if not found:
        raise FolderError(f"{watched.path}: no image in this folder or below; images are {', '.join(SUFFIXES)} files")


def _classified(
    predictor: Predictor, watched: Watched, batches: Iterable[list[str]], threads: int
) -> Iterator[list[Row]]:
    """Yield the rows of batches, in order, made by several threads, each of which decodes a batch and runs the model.

    Raises:
        FolderError: the folder is gone; that its images are is not what they are classified as.
    """
    ahead: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for paths in batches:
                ahead.append(pool.submit(classify, predictor, watched.path, paths))
                if len(ahead) >= AHEAD * threads:
                    yield _checked(ahead.popleft().result(), watched)
            while ahead:
                yield _checked(ahead.popleft().result(), watched)
        finally:
            pool.shutdown(cancel_futures=True)


def _checked(rows: list[Row], watched: Watched) -> list[Row]:
    if any(row.error for row in rows):
        watched.check()
    return rows
