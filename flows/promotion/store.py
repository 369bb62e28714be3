"""The folders of the registry, one for each model that went into service or was about to: made whole, never changed.

models/registry/<sha256 of model.onnx>/
  model.onnx model.pth model.json   as the run left them
  golden.json                       test images that any copy of the model has to know, tasks/gates/serving.py
  reference.npz                     what the images were, tasks/gates/drift.py
  verdict.json                      what was said of it then, flows/promotion/judgement.py
"""

import io
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
import xxhash

from flows.promotion.answers import answers
from flows.promotion.history import AGAIN, Entry, make_folder, sync
from serving.model import Predictor
from serving.probe import MODEL
from tasks.data.checks import digests_of
from tasks.gates.drift import Digests, Reference, statistics
from tasks.harness.code import sha256
from tasks.harness.errors import StageError
from tasks.prepared import Images, Split, spread

VERDICT, REFERENCE = "verdict.json", "reference.npz"
SHORTEST = 4  # digits of a version
PARTIAL, ABANDONED_S = ".partial-", 3600
REMEMBERED = 2000  # training images, of which there is more than a digest


def put(root: Path, model: str, files: Mapping[str, bytes | Callable[[], bytes]]) -> dict[str, str]:
    """Keep a model's files in the folder of its SHA-256, and return the SHA-256 of each.

    A folder that is there already is left as it is: its model has been in service, or was about to when it was killed.

    Args:
        files: by name; one that takes long to make as a function, which is called only where it is needed.

    Raises:
        StageError: that folder is damaged.
    """
    folder = root / model
    _remove_abandoned(root)
    if not folder.exists():
        contents = {name: made() if callable(made) else made for name, made in files.items()}
        partial = root / f"{PARTIAL}{uuid4()}"
        try:
            _write(partial, contents)
            partial.rename(folder)
        except OSError:
            if not folder.exists():  # else another promotion has just made it
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync(root)
    digests = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    if digests.get(MODEL) != model or digests.keys() != files.keys():
        raise StageError(
            f"{folder} should hold the model of that SHA-256 and {', '.join(sorted(files))}: it is damaged; {AGAIN}"
        )
    return digests


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    make_folder(folder)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o444)
        sync(folder / name)
    sync(folder)


def _remove_abandoned(root: Path) -> None:
    """Remove what a promotion that was killed has left half written, an hour ago or more."""
    for partial in root.glob(f"{PARTIAL}*"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(partial)


def check(root: Path, entry: Entry) -> Path:
    """Return the folder of the model of an entry, having compared every file with what the entry says of it.

    Raises:
        StageError: names the files that are missing or others.
    """
    folder = root / entry.model
    wrong = [name for name, digest in entry.files.items() if not _is(folder / name, digest)]
    if wrong:
        raise StageError(
            f"{folder}: {', '.join(wrong)} missing, or not what entry {entry.number} put into service; "
            "bring the folder back from a copy of the registry"
        )
    return folder


def find(entries: list[Entry], version: str) -> Entry:
    """Return the last entry of the model whose SHA-256 begins with `version`.

    Raises:
        StageError: it is none, or that of several models.
    """
    models = {entry.model for entry in entries if entry.model.startswith(version.lower())}
    if len(version) < SHORTEST or len(models) != 1:
        known = ", ".join(dict.fromkeys(entry.model[:SHORTEST] for entry in reversed(entries))) or "none yet"
        what = f"stands for {len(models)} models" if models else "is no model in the registry"
        what = f"has fewer than {SHORTEST} digits" if len(version) < SHORTEST else what
        raise StageError(f"version {version!r} {what}; those that are: {known}")
    return next(entry for entry in reversed(entries) if entry.model in models)


def digests(images: Images) -> Digests:
    """Return a 64-bit digest of each image, `uint64 [N]`."""
    return np.fromiter(digests_of(images), np.uint64, len(images))


def name_of(images: Digests) -> str:
    """Name a set of images by their digests, in whatever order."""
    return xxhash.xxh3_64_hexdigest(np.sort(images).tobytes())


def reference(train: Split, test: Split, predictor: Predictor, batch_size: int) -> bytes:
    """Describe the images of a model for the gates that look at what arrives later: see `Reference`.

    Raises:
        SessionError: the model fails on them.
    """
    chosen = spread(len(train.labels), REMEMBERED)
    buffer = io.BytesIO()
    found = Reference(
        digests(train.images),
        np.bincount(train.labels, minlength=len(predictor.class_names)),
        statistics(train.images, chosen),
        answers(predictor, train, batch_size, chosen).probabilities,
        digests(test.images),
    )
    np.savez(buffer, **vars(found))
    return buffer.getvalue()


def read_reference(folder: Path) -> Reference:
    with np.load(folder / REFERENCE) as found:
        return Reference(**found)


def _is(path: Path, digest: str) -> bool:
    try:
        return sha256(path) == digest
    except OSError:
        return False
