"""The model in service, as the registry's champion.json names it.

Whoever serves needs that file and the folder of the model, not the history: flows/promotion/history.py writes them.
"""

import json
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from serving.files import open_regular
from serving.probe import MODEL
from serving.session import SessionError, read_model

DEFAULT = Path("models/registry")
VARIABLE = "REGISTRY"  # environment: where it lies instead
POINTER = "champion.json"
MAX_BYTES = 65_536  # of champion.json
CHAMPION = "champion"  # on a command line, instead of the path of a model


@dataclass(frozen=True)
class Champion:
    """The contents of champion.json."""

    path: str  # of its model.onnx, below the registry
    sha256: str
    size: int
    number: int  # of the entry that put it into service


def registry() -> Path:
    """Return the folder of the registry: models/registry, or what REGISTRY names."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def read(root: Path) -> Champion | None:
    """Return the champion of a registry; None where none has been promoted yet.

    Raises:
        SessionError: champion.json is not what a promotion wrote, or names a file that is not in the registry.
    """
    path = root / POINTER
    try:
        with open_regular(path) as file:
            contents = json.loads(file.read(MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SessionError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        contents = None
    match contents:
        case {
            "schema_version": 1,  # as tasks/harness/records.py writes it
            "path": str(model),
            "sha256": str(digest),
            "size": int(size),
            "number": int(number),
        } if (
            type(size) is type(number) is int and re.fullmatch("[0-9a-f]{64}", digest) and model == f"{digest}/{MODEL}"
        ):
            return Champion(model, digest, size, number)
    raise SessionError(f"{path} is not what a promotion wrote; make history writes it anew from the history")


def content(root: Path, champion: Champion) -> bytes:
    """Return the model.onnx of a champion, compared with its SHA-256.

    Raises:
        SessionError: it cannot be read, or has other bytes than those that were promoted.
    """
    path = root / champion.path
    try:
        with open_regular(path) as file:
            found = file.read(champion.size + 1)
    except OSError as error:
        raise SessionError(
            f"the champion {path} cannot be read: {error.strerror}; make pull-champion brings it"
        ) from None
    if len(found) != champion.size or sha256(found).hexdigest() != champion.sha256:
        raise SessionError(
            f"the champion {path} has other bytes than those that were promoted; bring it back from a copy of the "
            "registry, or remove its folder and make pull-champion"
        )
    return found


def chosen(model: str) -> tuple[Path, bytes]:
    """Return the path and the bytes of a model that somebody named: its path, or `champion` for the one in service.

    Raises:
        SessionError: it cannot be read, or there is no champion yet.
    """
    if model != CHAMPION:
        return Path(model), read_model(model)
    root = registry()
    found = required(root)
    return root / found.path, content(root, found)


def required(root: Path) -> Champion:
    """Return the champion of a registry.

    Raises:
        SessionError: see `read`; or there is none yet.
    """
    if not (found := read(root)):
        raise SessionError(f"there is no champion in {root} yet; make promote makes one, make pull-champion brings it")
    return found
