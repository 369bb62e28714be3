"""What every stage's `main` runs inside, so that every caller gets the same safety.

Outputs are written to a folder beside their place and renamed into it after the stage has succeeded. A failure that
has a reason prints it in one sentence and exits with 1, one that is a defect keeps its traceback; either publishes
nothing.
"""

import errno
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tasks.params import ParamsError

Record = TypeVar("Record")
SCHEMA_VERSION = 1  # of every JSON that a stage writes


class StageError(Exception):
    """A stage cannot do its work; the message names the value at fault and what would be right."""


@contextmanager
def stage(name: str, *outputs: str) -> Iterator[Callable[[str], Path]]:
    """Run the body of stage `name` and publish its `outputs`, in this order, if it succeeds.

    Yields a function from an output's path to the path at which to write it meanwhile: on the same file system, and of
    the same file name, because `torch.save` writes the name into the file.
    """
    partial = f".partial-{name}"
    folders = {Path(output).parent / partial for output in outputs}
    try:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
            folder.mkdir(parents=True)
        yield lambda output: Path(output).parent / partial / Path(output).name
        for output in map(Path, outputs):
            _replace(output.parent / partial / output.name, output)
    except (StageError, ParamsError) as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        sys.exit(f"{name}: {_explain(error, name, outputs)}")
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing was published", file=sys.stderr)
        sys.exit(130)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, contents: dict[str, Any]) -> None:
    """Write `contents` with its schema version; NaN and infinity, which JSON does not have, raise ValueError."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **contents}, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote, without the schema version.

    Raises:
        StageError: the file is no such JSON, or one of another version.
    """
    try:
        contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = contents.pop("schema_version")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise StageError(f"{path} is not what a stage wrote ({error!r}); bring it back: dvc checkout {path}") from None
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


def _replace(new: Path, place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        place.rename(new.parent / f"{new.name}.old")  # a folder cannot be renamed over one that holds files
    new.replace(place)


def _explain(error: OSError, name: str, outputs: tuple[str, ...]) -> str:
    where = ", ".join(outputs)
    if error.errno == errno.ENOSPC:
        existing = next(parent for parent in Path(outputs[0]).absolute().parents if parent.exists())
        free_mb = shutil.disk_usage(existing).free / 1e6
        return f"the disk is full ({free_mb:.0f} MB free); {where} not written: make room and run again"
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is missing: run the stages before this one too, with dvc repro {name}"
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}; {where} not written"
