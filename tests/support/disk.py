"""A small disk, which a test fills up or makes read-only for real."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

BLOCK = 4096  # bytes, in which it gives away its room
HOW = "as root may, or whoever runs: unshare --mount --map-root-user make test"


@dataclass(frozen=True)
class Disk:
    """A tmpfs, and the folder where it is mounted."""

    folder: Path

    @contextmanager
    def full(self, free_blocks: int = 0) -> Iterator[None]:
        """Leave so many blocks free for as long as this lasts."""
        found = os.statvfs(self.folder)
        filler = self.folder / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - free_blocks * BLOCK)
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be written for as long as this lasts."""
        self._mount("remount,ro")
        try:
            yield
        finally:
            self._mount("remount,rw")

    def _mount(self, options: str) -> None:
        subprocess.run(("mount", "-o", options, self.folder), check=True)


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount a disk, where this process may."""
    folder.mkdir()
    words = ("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        refused = subprocess.run(words, capture_output=True, text=True, check=False).stderr.strip()
    except FileNotFoundError as error:
        refused = str(error)
    if refused:
        pytest.skip(f"may not mount a disk, {HOW} ({refused})")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(("umount", "--lazy", folder), check=True)
