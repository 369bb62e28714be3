"""The registry here and that at the remote, where one is configured: brought up to one another, step by step.

models/registry/remote.json   `Met`: how much of the history the remote had when this machine last met it

With a remote its history is the one that counts: an entry is made there first, once every file of its model has been
read back from there, and then here, so that after a kill between any two steps the next command goes on from what it
finds. Without one, this is flows/promotion/history.py alone.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from flows.promotion import history, store
from flows.promotion.history import HISTORY, Conflict, Entry, champion
from flows.promotion.remote import Remote, configured
from serving.champion import POINTER, Champion
from serving.probe import MODEL
from tasks.harness.errors import StageError
from tasks.harness.records import read_record, to_json, write_json

MET = "remote.json"

Found = TypeVar("Found", Entry, Champion)


@dataclass(frozen=True)
class Met:
    """The contents of remote.json."""

    remote: str
    number: int  # of the last entry that was there


def read(root: Path) -> list[Entry]:
    """Bring the history here and that at the remote up to one another, and read it.

    Raises:
        StageError: they contradict one another, one of them is damaged, or the remote does not answer.
    """
    if remote := configured():
        remote.check_exclusive()
        here = history.read(root)
        there = _common(root, remote, here)
        for entry in here[there:]:  # of a remote that was added later
            print(f"entry {entry.number}, {entry.version}, is brought to {remote}", flush=True)
            try:
                _publish(root, remote, entry)
            except Conflict:
                raise _contradiction(root, remote, entry) from None
        bring(root, _above(remote, here) if there == len(here) else [])
        if entries := history.read(root):
            _point(remote, entries[-1])
            _remember(root, remote, len(entries))
    return history.read(root)


def append(root: Path, entry: Entry) -> None:
    """Make the next entry, which is the promotion: at the remote, then here, and then the pointers.

    Raises:
        Conflict: there is an entry of that number already.
        StageError: the remote does not have the model as it is here, or does not answer.
    """
    remote = configured()
    if not remote:
        history.append(root, entry)
        return
    remote.check_exclusive()
    _publish(root, remote, entry)
    try:
        try:
            history.append(root, entry)
        except Conflict:  # another process has brought it here already
            if history.read(root)[entry.number - 1] != entry:
                raise _contradiction(root, remote, entry) from None
        _point(remote, entry)
        _remember(root, remote, entry.number)
    except (OSError, StageError) as error:
        raise StageError(f"{error}; entry {entry.number} is made all the same, at {remote}: promoted") from None


def folder(root: Path, entry: Entry) -> Path:
    """Return the folder of the model of an entry, every file compared with what the entry says of it.

    It is fetched where the remote has it, and this machine has not.

    Raises:
        StageError: names the files that are missing or others.
    """
    remote = configured()
    if remote and not (root / entry.model).exists():
        fetch(root, remote, entry)
        with suppress(StageError):
            history.read(root)  # the pointer may have waited for it
    try:
        return store.check(root, entry)
    except StageError as error:
        again = f"; or remove it, and make pull-champion or make rollback fetches it from {remote}" if remote else ""
        raise StageError(f"{error}{again}") from None


def pull(root: Path, tried: Callable[[Path], object]) -> Entry:
    """Bring what is in service at the remote here: its model, and the history.

    Args:
        tried: is called with the folder of the model, and raises StageError where it is not to come into service here.

    Raises:
        StageError: there is no remote, or no model in service there; or it and this machine contradict one another.
    """
    remote = configured()
    if not remote:
        raise StageError("DVC has no default remote to pull from: dvc remote add -d NAME URL, which README.md explains")
    here = history.read(root)
    there = _common(root, remote, here)
    if there < len(here):
        raise StageError(
            f"{remote} ends with entry {there}, {root} with {len(here)}: make promote brings the others there"
        )
    new = _above(remote, here)
    if not (entries := [*here, *new]):
        raise StageError(f"{remote} has no model in service: make promote, where one was trained, puts the first there")
    tried(folder(root, entries[-1]))
    bring(root, new)
    history.read(root)  # puts the pointer right
    _remember(root, remote, len(entries))
    return entries[-1]


def bring(root: Path, entries: list[Entry]) -> None:
    """Keep entries of the remote here, too."""
    for entry in entries:
        with suppress(FileExistsError):  # another process has brought it; if it is another one, `_common` says so
            history.create(root / entry.name, to_json(asdict(entry)).encode())


def fetch(root: Path, remote: Remote, entry: Entry) -> None:
    """Fetch the folder of the model of an entry, and compare each file with its digest first.

    Raises:
        StageError: names the files that are missing or others; there is no folder then.
    """
    files, wrong = {}, []
    for name, digest in entry.files.items():
        content = remote.read(f"{entry.model}/{name}")
        if content is not None and sha256(content).hexdigest() == digest:
            files[name] = content
        else:
            wrong.append(name)
    if entry.files.get(MODEL) != entry.model:
        wrong.append(f"{MODEL} of that SHA-256")
    if wrong:
        raise StageError(
            f"{remote}: {entry.model}: {', '.join(wrong)} missing, or not what entry {entry.number} put into service; "
            "bring the folder back there from the registry of a machine that has it"
        )
    store.put(root, entry.model, files)


def _publish(root: Path, remote: Remote, entry: Entry) -> None:
    """Have the remote hold the model of an entry, read back, and then the entry.

    Raises:
        Conflict: it has another entry of that number.
        StageError: it does not hold what it was given, or does not answer.
    """
    place = store.check(root, entry)
    for name, digest in entry.files.items():
        at = f"{entry.model}/{name}"
        if _differs(remote, at, digest):  # not there yet, or half, or rotten
            remote.write(at, (place / name).read_bytes())
            if wrong := _differs(remote, at, digest):
                raise StageError(f"{remote}: {at} was written and read back, and {wrong}; nothing was put into service")
    remote.try_exclusive()
    if not remote.make(entry.name, to_json(asdict(entry)).encode()):
        raise Conflict(f"entry {entry.number} has been made at {remote}")


def _differs(remote: Remote, name: str, digest: str) -> str | None:
    """Say how a file at the remote is another than that of this SHA-256; None: it is that one."""
    content = remote.read(name)
    if content is None:
        return "is not there"
    found = sha256(content).hexdigest()
    return None if found == digest else f"has the SHA-256 {found}, not {digest}"


def _common(root: Path, remote: Remote, here: list[Entry]) -> int:
    """Return how many of the entries here the remote has.

    Raises:
        StageError: its entry of one number is another one; or it has had more of them.
    """
    common = 0
    for entry in reversed(here):
        if found := _entry(remote, entry.name):
            if found != entry:
                raise _contradiction(root, remote, entry)
            common = entry.number
            break
    met = _met(root)
    if met and met.remote == remote.url and common < min(met.number, len(here)):
        raise StageError(
            f"{remote} has had entry {met.number}, and has {HISTORY} up to {common} of those here: "
            f"is it mounted? If it is to be filled anew, remove {root / MET}"
        )
    return common


def _above(remote: Remote, here: list[Entry]) -> list[Entry]:
    """Fetch the entries that follow those here.

    Raises:
        StageError: they do not follow each other, or one of them is missing.
    """
    pointer = _record(remote, POINTER, Champion)  # first: entries may be made meanwhile
    entries = list(here)
    while found := _entry(remote, f"{HISTORY}/{len(entries) + 1:06}.json"):
        history.check_follows(remote.at(found.name), found, entries)
        entries.append(found)
    if pointer and pointer.number > len(entries):
        raise StageError(f"{remote.at(POINTER)} names entry {pointer.number}, and {remote} lacks {len(entries) + 1}")
    return entries[len(here) :]


def _point(remote: Remote, last: Entry) -> None:
    """Have the pointer at the remote name its last entry.

    Whoever makes the entry after it writes the pointer, too, and may have done so before: hence another look.
    """
    following: Entry | None = last
    while following:
        last = following
        wanted = to_json(asdict(champion(last))).encode()
        if remote.read(POINTER) != wanted:
            remote.write(POINTER, wanted)
        following = _entry(remote, f"{HISTORY}/{last.number + 1:06}.json")


def _entry(remote: Remote, name: str) -> Entry | None:
    return _record(remote, name, Entry)


def _record(remote: Remote, name: str, kind: type[Found]) -> Found | None:
    """Fetch a file of JSON and check it; None: there is none."""
    content = remote.read(name)
    if content is None:
        return None
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "record.json")
        path.write_bytes(content)
        try:
            return read_record(path, kind, "bring it back there from a machine that has it")
        except StageError as error:
            raise StageError(str(error).replace(str(path), remote.at(name))) from None


def _met(root: Path) -> Met | None:
    path = root / MET
    return read_record(path, Met, "remove it") if path.exists() else None


def _remember(root: Path, remote: Remote, number: int) -> None:
    met = Met(remote.url, number)
    if _met(root) != met:
        with history.locked(root, f"writes {root / MET}"):
            write_json(root / MET, asdict(met))


def _contradiction(root: Path, remote: Remote, entry: Entry) -> StageError:
    return StageError(
        f"{remote.at(entry.name)} and {root / entry.name} are different entries: two histories that do not belong "
        "together; nothing was changed. Keep one: another remote, or another folder in REGISTRY"
    )
