"""The JSON files that stages write, each with the version of its schema."""

import json
from pathlib import Path
from typing import Any, TypeVar

from tasks.harness.errors import StageError

Record = TypeVar("Record")
SCHEMA_VERSION = 1


def write_json(path: Path, contents: dict[str, Any]) -> None:
    """Write `contents` with its schema version; NaN and infinity, which JSON does not have, raise ValueError."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **contents}, indent=2, allow_nan=False)
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote, without the schema version.

    Raises:
        StageError: the file is no such JSON, or one of another version.
    """
    try:
        contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = contents.pop("schema_version")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise StageError(f"{path} is not what a stage wrote ({error!r}); run dvc repro") from None
    if version != SCHEMA_VERSION:
        raise StageError(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}; run dvc repro")
    return contents


def read_record(path: Path, kind: type[Record]) -> Record:
    """Read what `write_json` wrote of a dataclass; see `read_json`."""
    contents = read_json(path)
    try:
        return kind(**contents)
    except TypeError as error:
        raise StageError(f"{path} does not hold a {kind.__name__} ({error}); run dvc repro") from None
