"""What a stage depends on, at its start and at its end: an input that changed meanwhile makes the stage fail.

DVC takes its hashes of the inputs after the stage has run. If they were no longer what the stage had read, dvc.lock
would record a link between inputs and outputs that never was (https://github.com/treeverse/dvc/issues/11058).
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.harness import code, section
from tasks.harness.code import ROOT, sha256
from tasks.harness.errors import ParamsError


class Inputs:
    """The inputs of a stage as they are now: its code and parameters by content, its data by size, time and inode.

    Args:
        reads: files and folders.
        params: sections and keys of params.yaml, as in dvc.yaml.
    """

    def __init__(self, reads: Sequence[str], params: Sequence[str]) -> None:
        self.reads = reads
        self.params = params
        self._data = self._stat()
        self._values = self._read_params()

    def changed(self) -> list[str]:
        """Name the inputs that are no longer what they were, a parameter as `params.yaml: train.epochs`."""
        data, values = self._stat(), self._read_params()
        return [
            *(
                str(path.relative_to(ROOT))
                for path in code.loaded()
                if not path.exists() or sha256(path) != code.at_start()[path]
            ),
            *sorted(name for name in {**self._data, **data} if self._data.get(name) != data.get(name)),
            *(f"{section.PARAMS}: {name}" for name in self.params if self._values.get(name) != values.get(name)),
        ]

    def digest(self) -> str:
        """Hash what is in them all: two runs of a stage with one digest do the same, on whatever host, in which folder.

        Raises:
            FileNotFoundError: one is missing.
        """
        modules = {str(path.relative_to(ROOT)): code.at_start()[path] for path in code.loaded()}
        data = {name: sha256(Path(name)) for name in self._data}
        return hashlib.sha256(repr((modules, data, self._values)).encode()).hexdigest()

    def _stat(self) -> dict[str, tuple[int, int, int]]:
        return {str(path): _fingerprint(path) for read in self.reads for path in _files(Path(read))}

    def _read_params(self) -> dict[str, Any]:
        try:
            document = section.read()
            return {name: _value(document, name) for name in self.params}
        except (ParamsError, OSError, TypeError, AttributeError):
            return {}  # who loads the section says what is wrong with the file


def _files(read: Path) -> Iterator[Path]:
    yield from sorted(path for path in read.rglob("*") if path.is_file()) if read.is_dir() else [read]


def _fingerprint(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _value(document: Any, name: str) -> Any:
    for key in name.split("."):
        document = document.get(key) if document is not None else None
    return document
