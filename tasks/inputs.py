"""What a stage depends on, at its start and at its end: an input that changed meanwhile makes the stage fail.

DVC takes its hashes of the inputs after the stage has run. If they were no longer what the stage had read, dvc.lock
would record a link between inputs and outputs that never was (https://github.com/treeverse/dvc/issues/11058).
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ROOT = Path(__file__).parent.parent
PARAMS = Path("params.yaml")


def sha256(path: Path) -> str:
    """Hash what is in a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Of the project's modules, before those that take seconds to import let the user edit the rest.
_CODE = {path: sha256(path) for package in ("serving", "tasks") for path in (ROOT / package).glob("*.py")}


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
                for path in loaded_code()
                if not path.exists() or sha256(path) != _CODE[path]
            ),
            *sorted(name for name in {**self._data, **data} if self._data.get(name) != data.get(name)),
            *(f"{PARAMS}: {name}" for name in self.params if self._values.get(name) != values.get(name)),
        ]

    def digest(self) -> str:
        """Hash them all: what two runs of a stage share if the second may go on where the first was stopped."""
        code = {str(path.relative_to(ROOT)): _CODE[path] for path in loaded_code()}
        return hashlib.sha256(repr((code, self._data, self._values)).encode()).hexdigest()

    def _stat(self) -> dict[str, tuple[int, int, int]]:
        return {str(path): _fingerprint(path) for place in self.reads for path in _files(Path(place))}

    def _read_params(self) -> dict[str, Any]:
        try:
            document = YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))
            return {name: _value(document, name) for name in self.params}
        except (OSError, UnicodeDecodeError, YAMLError, TypeError):
            return {}  # tasks.params says what is wrong with it


def loaded_code() -> list[Path]:
    """List the project's modules that this process has imported."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return sorted({Path(file) for file in files if file} & _CODE.keys())


def _files(place: Path) -> Iterator[Path]:
    yield from sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]


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
