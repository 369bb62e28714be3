"""The history of the registry: writing its next entry is what puts a model into service.

models/registry/history/000042.json   `Entry`; made once, never changed
models/registry/champion.json         `Champion`: the last entry in short, for whoever serves

An entry is made under a number that nobody has taken, in one step of the file system: of two that would follow the same
entry one wins, and the other sees that. The pointer is a copy, which whoever reads the history next puts right. Source:
the commit protocol of Armbrust et al., Delta Lake, PVLDB 13(12), 2020.
"""

import getpass
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import AfterValidator, Field

from serving.champion import POINTER, Champion
from serving.probe import MODEL
from tasks.gates.verdict import Outcome
from tasks.harness import lock
from tasks.harness.errors import StageError
from tasks.harness.lock import Locked
from tasks.harness.records import read_record, to_json, write_json

HISTORY = "history"
LOCK = ".lock"  # of the pointer and the count of looks
NAME = re.compile(r"(\d{6,})\.json")
WAIT_S = 60
DIGITS = 7  # of a SHA-256, to a person
MADE = "; the entry is made, make history puts the pointer right"
AGAIN = "no command makes it anew: bring it back from a copy of the registry"

Action = Literal["promoted", "rolled back"]


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("should be a SHA-256 of 64 hexadecimal digits")
    return text


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("should be a time with its zone")
    return text


def _file_name(text: str) -> str:
    if text in ("", ".", "..") or "/" in text or "\0" in text:  # an entry may come from elsewhere, and leads nowhere
        raise ValueError("should be the name of a file in the model's folder")
    return text


Digest = Annotated[str, AfterValidator(_digest)]
FileName = Annotated[str, AfterValidator(_file_name)]
Moment = Annotated[str, AfterValidator(_moment)]


class Conflict(Exception):
    """Another entry has been made since the history was read."""


@dataclass(frozen=True)
class Entry:
    """A model was put into service."""

    number: Annotated[int, Field(ge=1)]
    time: Moment  # in UTC, as ISO 8601 has it
    action: Action
    replaces: Digest | None  # the model in service until then; None: there was none
    model: Digest  # the SHA-256 of its model.onnx, which names its folder
    size: Annotated[int, Field(ge=1)]  # of it, in bytes
    files: dict[FileName, Digest]  # everything in its folder
    by: str
    reason: str | None
    forced: bool  # though a blessing was missing
    blessings: dict[str, Outcome]  # what each gate said
    rule: str | None  # by which it was found good enough; None: there was nothing to compare with
    gain: float | None  # of accuracy over the model that it replaces, on the same test images
    p: float | None  # how likely that is of a model that is no better

    @property
    def version(self) -> str:
        return self.model[:DIGITS]

    @property
    def name(self) -> str:
        """Where the entry lies below the registry."""
        return f"{HISTORY}/{self.number:06}.json"

    @property
    def line(self) -> str:
        """Say in one line what happened, the time in UTC."""
        time = datetime.fromisoformat(self.time).astimezone(UTC)
        before = self.replaces[:DIGITS] if self.replaces else "-" * DIGITS
        what = [f"{self.action} by force" if self.forced else self.action]
        if self.gain is not None and self.p is not None:
            what.append(f"{100 * self.gain:+.2f} pt (p = {self.p:.2g})")
        what.append(f"by {self.by}{f': {self.reason}' if self.reason else ''}")
        return f"#{self.number:<4} {time:%Y-%m-%d %H:%M}  {before} -> {self.version}  {'  '.join(what)}"


def read(root: Path) -> list[Entry]:
    """Read the whole history, the first entry first, and put the pointer right where it lags behind.

    Raises:
        StageError: an entry is missing, is not what `append` wrote, or does not follow the one before it.
    """
    entries, pointed = _entries(root), _pointed(root)
    if pointed and pointed.number > len(entries):
        entries = _entries(root)  # an entry may just have been made
        if pointed.number > len(entries):
            raise StageError(
                f"{root / POINTER} names entry {pointed.number}, and {root / HISTORY} ends with {len(entries)}; {AGAIN}"
            )
    if entries and pointed != champion(entries[-1]):
        with suppress(OSError, StageError):  # who may only read, or reads while it is put right, has the history
            _point(root)
    return entries


def append(root: Path, entry: Entry) -> None:
    """Make the next entry, which is the promotion, and then the pointer.

    Raises:
        Conflict: there is an entry of that number already.
    """
    try:
        create(root / entry.name, to_json(asdict(entry)).encode())
    except FileExistsError:
        raise Conflict(f"entry {entry.number} has been made by somebody else") from None
    try:
        _point(root)
    except OSError as error:
        raise StageError(f"the pointer {root / POINTER} cannot be written ({error.strerror}){MADE}") from None


def create(path: Path, content: bytes) -> None:
    """Make a file that is not there, whole and for good, in one step of the file system.

    Raises:
        FileExistsError: there is one of that name.
    """
    make_folder(path.parent)
    partial = path.with_name(f".partial-{uuid4()}")
    try:
        partial.write_bytes(content)
        sync(partial)
        os.link(partial, path)  # fails where there is one
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder where there is none, and those that it lies in, so that a power cut takes none of them back."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def champion(entry: Entry) -> Champion:
    return Champion(f"{entry.model}/{MODEL}", entry.model, entry.size, entry.number)


def now() -> datetime:
    return datetime.now(UTC)


def person() -> str:
    """Name who is at it: a user and a machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user has no name, as in some containers
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def sync(path: Path) -> None:
    """Have what is in a file, or in a folder, written to the disk, so that a power cut does not take it back."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entries(root: Path) -> list[Entry]:
    paths = sorted(path for path in (root / HISTORY).glob("*.json") if NAME.fullmatch(path.name))
    entries: list[Entry] = []
    for path in paths:
        entry = read_record(path, Entry, AGAIN)
        if path.name != Path(entry.name).name:
            raise StageError(f"{path} should be entry {len(entries) + 1}, and is entry {entry.number}; {AGAIN}")
        check_follows(str(path), entry, entries)
        entries.append(entry)
    return entries


def check_follows(where: str, entry: Entry, entries: list[Entry]) -> None:
    """See that an entry, which lies `where`, is the next one after `entries`.

    Raises:
        StageError: it is not.
    """
    before = entries[-1].model if entries else None
    if entry.number != len(entries) + 1:
        raise StageError(f"{where} should be entry {len(entries) + 1}, and is entry {entry.number}; {AGAIN}")
    if entry.replaces != before:
        raise StageError(f"{where} replaces {entry.replaces}, but {before} was in service; {AGAIN}")


def _pointed(root: Path) -> Champion | None:
    """Read the pointer; None where it is missing, or is none."""
    with suppress(OSError, StageError):
        return read_record(root / POINTER, Champion)
    return None


def _point(root: Path) -> None:
    """Write the pointer anew. One process at a time, so that an older one never comes last.

    It stays where it is while the model of the last entry is not here, but at the remote alone.
    """
    with locked(root, f"writes the pointer {root / POINTER}", MADE):
        last = champion(_entries(root)[-1])
        if (root / last.path).exists():
            write_json(root / POINTER, asdict(last))
            sync(root / POINTER)
            sync(root)


@contextmanager
def locked(root: Path, what: str, then: str = "") -> Iterator[None]:
    """Change what of the registry is no entry and no folder of a model: one process at a time.

    Args:
        what: another process does if it has the lock for long, and what `then` is to be said.

    Raises:
        StageError: it has.
    """
    try:
        with lock.hold(root / LOCK, WAIT_S):
            yield
    except Locked as held:
        raise StageError(f"another process {what} and does not end: {held.holder}{then}") from None
