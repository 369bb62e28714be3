"""The JSON files that stages write, each with the version of its schema."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tasks.harness.errors import StageError, refusal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")
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
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise StageError(f"{path} is not what a stage wrote ({error!r}); run dvc repro") from None
    if version != SCHEMA_VERSION:
        raise StageError(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}; run dvc repro")
    return contents


def read_record(path: Path, kind: type[Record]) -> Record:
    """Read what `write_json` wrote of a dataclass, and check every value by its annotation.

    Raises:
        StageError: see `read_json`; or lists every key that is missing or unknown, and every value that is refused.
    """
    contents = read_json(path)
    unknown = [f"{key}: unknown key" for key in contents if key not in {field.name for field in fields(kind)}]
    try:
        # As JSON, in whose strict mode an object may be a dataclass, but "5" is no integer.
        record = TypeAdapter(kind).validate_json(json.dumps(contents), strict=True)
    except ValidationError as error:
        unknown += [refusal(detail) for detail in error.errors()]
    if unknown:
        raise StageError(f"{path} is refused, it is not what a stage wrote: {'; '.join(unknown)}; run dvc repro")
    return record
