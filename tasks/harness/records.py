"""The JSON files that stages write, each with the version of its schema."""

import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tasks.harness.errors import StageError, refusal
from tasks.harness.replacing import replacing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")
SCHEMA_VERSION = 1


def to_json(contents: dict[str, Any]) -> str:
    """Write `contents` with its schema version; NaN and infinity, which JSON does not have, raise ValueError."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **contents}, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, contents: dict[str, Any]) -> None:
    """Write a file of what `to_json` gives."""
    with replacing(path) as partial:
        partial.write_text(to_json(contents), encoding="utf-8")


def read_json(path: Path, again: str = "run dvc repro") -> dict[str, Any]:
    """Read what `write_json` wrote, without the schema version.

    Args:
        again: what to do to have it anew.

    Raises:
        StageError: the file is no such JSON, or one of another version.
    """
    try:
        contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = contents.pop("schema_version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise StageError(f"{path} is not what a stage wrote ({error!r}); {again}") from None
    if version != SCHEMA_VERSION:
        raise StageError(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}; {again}")
    return contents


def read_record(path: Path, kind: type[Record], again: str = "run dvc repro") -> Record:
    """Read what `write_json` wrote of a dataclass; see `read_json` and `parse`."""
    return parse(read_json(path, again), kind, path, again=again)


@cache
def _checked(kind: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(kind)  # which takes milliseconds to make


def parse(
    contents: object, kind: type[Record], path: Path, at: tuple[str, ...] = (), again: str = "run dvc repro"
) -> Record:
    """Check every value of what `path` holds of a dataclass by its annotation.

    Whoever wrote it wrote every key: the defaults of the dataclass are for who makes one.

    Args:
        at: where it stands in the file.
        again: what to do to have the file anew.

    Raises:
        StageError: lists every key that is missing or unknown, and every value that is refused.
    """
    names = [field.name for field in fields(kind)]
    keys = list(contents) if isinstance(contents, dict) else names
    wrong = [f"{'.'.join((*at, key))}: unknown key" for key in keys if key not in names]
    wrong += [f"{'.'.join((*at, name))}: missing" for name in names if name not in keys]
    try:
        # As JSON, in whose strict mode an object may be a dataclass, but "5" is no integer.
        record: Record = _checked(kind).validate_json(json.dumps(contents), strict=True)
    except ValidationError as error:
        wrong += [reason for reason in (refusal(detail, at) for detail in error.errors()) if reason not in wrong]
    if wrong:
        raise StageError(f"{path} is refused, it is not what a stage wrote: {'; '.join(wrong)}; {again}")
    return record
