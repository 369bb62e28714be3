"""The place in DVC's default remote where the registry lies, too, and what is asked of it: read, write, make.

<remote>/registry/   as models/registry/: <sha256>/model.onnx ..., history/000042.json, champion.json

DVC's own object for the remote moves the bytes, so that its configuration, credentials and kinds of remotes hold.
Nothing is listed, because not every kind can: a name is asked for, and is there or not.
"""

import re
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

from flows.promotion import history
from flows.runtime import night
from tasks.harness.errors import StageError

FOLDER = "registry"
# On these a file can be made by one alone. fsspec's own way, for all others, is to look first, and then to write.
EXCLUSIVE = ("local", "s3", "gs", "azure")
PROBE = "history/exclusive"
LIMIT_S = 1800  # for a file: a mount whose server has gone never answers

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Remote:
    """DVC's default remote."""

    name: str
    url: str  # without a password
    fs: Any  # dvc_objects.fs.base.FileSystem
    path: str  # of the registry in it

    def __str__(self) -> str:
        return f"the remote {self.name!r}, {self.url}"

    def at(self, name: str) -> str:
        """Return the path of a file of the registry."""
        return str(self.fs.join(self.path, *name.split("/")))

    def read(self, name: str) -> bytes | None:
        """Fetch a file; None: there is none.

        Raises:
            StageError: the remote does not answer, or refuses.
        """
        try:
            return self._ask(
                f"{name} cannot be read", lambda: bytes(self.fs.read_bytes(self.at(name))), FileNotFoundError
            )
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in place of one that may be there: as a whole, where the remote can.

        Raises:
            StageError: the remote does not answer, or refuses.
        """

        def put() -> None:
            path = Path(self.at(name))
            if self._is_local:
                history.make_folder(path.parent)
            with TemporaryDirectory() as folder:
                (source := Path(folder, "file")).write_bytes(content)
                self.fs.put_file(str(source), self.at(name))
            if self._is_local:
                history.sync(path)
                history.sync(path.parent)

        self._ask(f"{name} cannot be written", put)

    def make(self, name: str, content: bytes) -> bool:
        """Make a file that is not there, and return whether that was done: of several that would, one does.

        Raises:
            StageError: the remote does not answer, or refuses.
        """
        try:
            self._ask(f"{name} cannot be made", lambda: self._make(self.at(name), content))
        except StageError:
            # Each store says in its own way that there is one, and an answer may be lost: what is there is the truth.
            if (found := self.read(name)) is None:
                raise
            return found == content
        return True

    def check_exclusive(self) -> None:
        """See that this kind of remote lets a file be made by one alone, without which two machines could both win.

        Raises:
            StageError: it does not.
        """
        if self.fs.protocol not in EXCLUSIVE:
            raise StageError(
                f"{self} can be read and not promoted to: {', '.join(EXCLUSIVE)} are the kinds of remotes that let an "
                f"entry be made by one alone, {self.fs.protocol} does not; dvc remote default NAME chooses another"
            )

    def try_exclusive(self) -> None:
        """Have the remote refuse to make a file that is there: a store of the right kind may not know how.

        Raises:
            StageError: it has written over it.
        """
        if self.read(PROBE) is None:
            self.make(PROBE, b"is never written over\n")
        if self.make(PROBE, uuid4().bytes):
            raise StageError(f"{self} wrote over a file that it was to make only where there is none: two could win")

    @property
    def _is_local(self) -> bool:
        return bool(self.fs.protocol == "local")

    def _make(self, path: str, content: bytes) -> None:
        if self._is_local:
            history.create(Path(path), content)
        else:
            self.fs.pipe_file(path, content, mode="create")  # If-None-Match: * of s3fs

    def _ask(self, failure: str, call: Callable[[], Answer], *answers: type[OSError]) -> Answer:
        """Have the remote do something, and wait for it so long.

        Raises:
            one of `answers`: that is what it says.
            StageError: it does not answer, or anything else is wrong.
        """
        answer: Future[Answer] = Future()

        def work() -> None:
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            return answer.result(LIMIT_S)
        except answers:
            raise
        except Exception as error:  # each kind of remote has classes of its own
            late = f"no answer within {LIMIT_S} s" if not answer.done() else ""
            raise StageError(f"{self}: {failure}: {late or str(error) or type(error).__name__}") from None


def configured() -> Remote | None:
    """Return the default remote of DVC that the project names; None: it names none.

    In a night's checkout it is that of the person's tree.

    Raises:
        StageError: it cannot be used as it is configured.
    """
    if not _is_named():
        return None
    from dvc.config import Config  # a quarter of a second
    from dvc.fs import get_cloud_fs

    try:
        # Where the person's tree lies, from which a relative path leads.
        config = Config(dvc_dir=str(night.home().absolute() / ".dvc"))
        name = config["core"].get("remote")
        if not name:
            return None
        kind, options, path = get_cloud_fs(config, name=name)
        fs, url = kind(**options), re.sub("//[^/@]*@", "//", str(config["remote"][name]["url"]))
    except Exception as error:
        raise StageError(f"DVC's default remote cannot be used: {error}; see dvc remote list") from None
    if fs.protocol == "local" and not Path(path).is_dir():
        raise StageError(f"the remote {name!r}: there is no folder {path}; mount it, or make it")
    remote = Remote(name, url, fs, fs.join(path, FOLDER))
    if fs.protocol in ("http", "https"):
        weakref.finalize(remote, _end_session, fs)
    return remote


def _end_session(fs: Any) -> None:
    """End the connections over HTTP, while a thread is at hand that can.

    DVC's object and fsspec's hold each other, so that Python collects them in any thread: fsspec's own can't end them.
    """
    if fs.fs._session is not None:
        fs.fs.close_session(fs.fs.loop, fs.fs._session)


def _is_named() -> bool:
    """Tell whether the project names a default remote, without the import of DVC.

    One that a user or a machine has for all projects is none for a registry: their histories would be one.
    """
    for path in (night.home() / ".dvc/config", night.home() / ".dvc/config.local"):
        with suppress(OSError):
            if re.search(rb"^\s*[\"']?remote[\"']?\s*=", path.read_bytes(), re.MULTILINE | re.IGNORECASE):
                return True
    return False
