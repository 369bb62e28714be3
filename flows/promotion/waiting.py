"""Models that have all three blessings and wait for a person, because `retraining.approval` is true.

models/registry/waiting/<sha256 of model.onnx>.json   `Entry`: as it would have been made
"""

from dataclasses import asdict
from pathlib import Path

from flows.promotion.history import Entry
from tasks.harness.records import read_record, write_json

FOLDER = "waiting"
AGAIN = "remove it, and the next night judges the model again"


def add(root: Path, entry: Entry) -> None:
    """Have the model of an entry wait, whose folder is there."""
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    write_json(_path(root, entry.model), asdict(entry))


def read(root: Path) -> list[Entry]:
    """Return what would have been entered, in the order of time.

    Raises:
        StageError: a file is none that `add` wrote.
    """
    found = [read_record(path, Entry, AGAIN) for path in (root / FOLDER).glob("*.json")]
    return sorted(found, key=lambda entry: entry.time)


def remove(root: Path, model: str) -> None:
    """Have a model wait no longer, if it does."""
    _path(root, model).unlink(missing_ok=True)


def _path(root: Path, model: str) -> Path:
    return root / FOLDER / f"{model}.json"
