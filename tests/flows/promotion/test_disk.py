"""Disks that are read-only, or full at each moment that writes to them: said, nothing is half there, and it goes on."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from flows import promote, rollback
from flows.promotion import history, shared
from serving import champion
from tasks.gates import serving
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tests.flows.promotion.conftest import Variant, name_remote
from tests.flows.promotion.test_killed import in_service
from tests.flows.promotion.test_shared import put_into_service, whole
from tests.support.disk import BLOCK, Disk, mounted

Trouble = Callable[[], AbstractContextManager[None]]
FEW = 40  # blocks, which the files of a model take that come after the network
SAID = re.compile(
    r"|(promote|rollback): (the disk is full \(\d MB free in /.*/disk/registry\): make room"
    r"|Read-only file system: /.*/disk/registry/.*"
    r"|the pointer /.* cannot be written \(No space left on device\); the entry is made, make history puts .* right)"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", megabytes=32) as disk:
        yield disk


@pytest.fixture
def registry(ready: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry on the disk, with a model in service; no model is tried."""
    monkeypatch.setenv("REGISTRY", str(disk.folder / "registry"))
    monkeypatch.setattr(serving, "gate", lambda *_, **__: Verdict("serving", "passed"))
    promote.main([])
    return disk.folder / "registry"


def troubles(disk: Disk, blocks: int = 0) -> Iterator[Trouble]:
    """Yield what may be wrong with a disk: it is read-only, or full before any of so many blocks is written.

    Of many blocks at a time, and at the end each one.
    """
    yield disk.read_only
    for free in (*range(0, blocks - FEW, max(1, blocks // 20)), *range(max(0, blocks - FEW), blocks + FEW)):
        yield partial(disk.full, free)


def blocks(folder: Path) -> int:
    return sum(path.stat().st_blocks for path in folder.rglob("*")) * 512 // BLOCK


def tried(root: Path, trouble: Trouble, command: Callable[[], object]) -> str:
    """Run a command in trouble, and return what it says if it fails; what was in service is there meanwhile."""
    before, said = in_service(root), ""
    with trouble():
        try:
            command()
        except SystemExit as end:
            said = str(end.code)
            pointed = champion.read(root)
            assert pointed
            assert champion.content(root, pointed)
            assert pointed.sha256 == before
    assert SAID.fullmatch(said), said
    if said:
        assert (in_service(root) != before) == ("the entry is made" in said)
    assert not [*root.glob(".partial-*/"), *(root / history.HISTORY).glob(".partial-*")]
    return said


def test_a_promotion_and_a_rollback_fail_in_a_sentence_until_there_is_room_for_them(
    disk: Disk, registry: Path, variant: Variant
) -> None:
    first, another = in_service(registry), variant("another")
    promotion = partial(promote.main, ["--force", "--reason", "no better"])
    for trouble in troubles(disk, blocks(registry)):
        assert tried(registry, trouble, promotion)
        if (registry / another).exists():
            break  # there was room for its files, which are there for the next attempt
    for command, model in ((promotion, another), (partial(rollback.main, ["--reason", "no better"]), first)):
        said = []
        for trouble in troubles(disk):
            said.append(tried(registry, trouble, command))
            if in_service(registry) == model:
                break
        assert "Read-only file system" in said[0]
        assert "the disk is full" in said[1]
        assert "the entry is made" in said[-1], "all but its pointer has found room"
        assert in_service(registry) == model


def test_a_remote_whose_disk_has_no_room_takes_nothing_until_it_has(disk: Disk, workspace: Path) -> None:
    storage, machine = disk.folder / "storage", workspace / "machine"
    storage.mkdir()
    name_remote(workspace, str(storage))
    first, said = put_into_service(machine, "1"), []
    for trouble in troubles(disk):
        with trouble(), pytest.raises(StageError) as failed:
            put_into_service(machine, "2")
        said.append(str(failed.value))
        if "entry 2 is made all the same" in said[-1]:
            break  # all but its pointer there has found room
        assert whole(machine) == whole(storage / "registry") == [first]
    assert all(re.match(f"the remote 'storage', {storage}: .*(No space left|Read-only)", one) for one in said)
    assert len(said) > 3
    _, second = shared.read(machine)
    assert whole(machine) == whole(storage / "registry") == [first, second]
