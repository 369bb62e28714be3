"""What the tests of promotion share: an entry, a candidate in models/, others that differ in a note, a remote."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from flows.promotion import candidate
from flows.promotion.history import Entry

Variant = Callable[[str], str]
OnTheDisk = Callable[[Path, Path], bool]
ENTRY = Entry(
    number=1,
    time="2026-11-24T03:41:00+00:00",
    action="promoted",
    replaces=None,
    model="a" * 64,
    size=1,
    files={},
    by="ana@host",
    reason=None,
    forced=False,
    blessings={"quality": "passed"},
    rule="better",
    gain=0.0084,
    p=0.0007,
)


def name_remote(project: Path, url: str, config: str = "config") -> None:
    """Make a URL, or a path from .dvc/, DVC's default remote in a project."""
    (project / ".dvc").mkdir(exist_ok=True)
    lines = ("[core]", "    remote = storage", "['remote \"storage\"']", f"    url = {url}", "")
    (project / ".dvc" / config).write_text("\n".join(lines))


@pytest.fixture
def ready(exported: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the registry, in a workspace that a run has just left, where any accuracy will do."""
    monkeypatch.setattr(candidate, "stale", list)
    for name in ("AT", "FORCE", "REASON", "REGISTRY", "TO", "VERSION"):
        monkeypatch.delenv(name, raising=False)
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("min_accuracy: 0.5", "min_accuracy: null"))
    return checkout / "models/registry"


@pytest.fixture
def variant(ready: Path) -> Variant:
    """Change the candidate, so that it is another file that predicts the same, and return its SHA-256."""

    def change(note: str) -> str:
        path = Path("models/model.onnx")
        model = onnx.load(path)
        model.doc_string = note
        path.unlink()  # it may be a link of DVC's
        path.write_bytes(model.SerializeToString(deterministic=True))
        return candidate.of_models().digest

    return change


@pytest.fixture
def on_the_disk(monkeypatch: pytest.MonkeyPatch) -> OnTheDisk:
    """Tell of a path whether its name was written through to the disk before that of another, an entry, was made."""
    synced: set[tuple[int, int]] = set()  # what a folder held, and the folder
    before: dict[Path, set[tuple[int, int]]] = {}
    fsync, link = os.fsync, os.link

    def record(handle: int) -> None:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            synced.update((inside.inode(), found.st_ino) for inside in os.scandir(handle))
        fsync(handle)

    def make(source: Path, place: Path) -> None:
        before[place.resolve()] = set(synced)
        link(source, place)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "link", make)
    return lambda path, entry: (path.stat().st_ino, path.parent.stat().st_ino) in before[entry.resolve()]
