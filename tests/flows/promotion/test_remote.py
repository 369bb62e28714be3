"""The remote, as DVC's configuration names it, and what is asked of it; stores of other kinds are made here."""

import errno
import posixpath
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flows.promotion import remote
from flows.promotion.remote import Remote
from flows.runtime import night
from tasks.harness.errors import StageError
from tests.flows.promotion.conftest import name_remote


class Store:
    """Objects by name, as S3 has them: made by one alone where `mode` says so."""

    protocol = "s3"
    join = staticmethod(posixpath.join)

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[dict[str, Any]] = []

    def read_bytes(self, path: str) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]

    def put_file(self, source: str, path: str) -> None:
        self.objects[path] = Path(source).read_bytes()

    def pipe_file(self, path: str, content: bytes, **options: Any) -> None:
        self.asked.append(options)
        if path in self.objects:
            raise FileExistsError(path)
        self.objects[path] = content


class Forgetful(Store):
    """One that does not know If-None-Match."""

    def pipe_file(self, path: str, content: bytes, **options: Any) -> None:
        self.objects[path] = content


class Odd(Store):
    """One that says in words of its own that there is an object."""

    def pipe_file(self, path: str, content: bytes, **options: Any) -> None:
        try:
            super().pipe_file(path, content, **options)
        except FileExistsError:
            raise OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold") from None


class Lossy(Store):
    """One whose answers are lost on the way, so that what was done is done again."""

    def pipe_file(self, path: str, content: bytes, **options: Any) -> None:
        super().pipe_file(path, content, **options)
        raise ConnectionError("reset by peer")


def over(store: Store) -> Remote:
    return Remote("storage", "s3://bucket/path", store, "bucket/path/registry")


def test_an_object_store_is_asked_to_make_an_entry_only_where_there_is_none() -> None:
    store = Store()
    assert over(store).make("history/000001.json", b"1")
    assert store.asked == [{"mode": "create"}]  # which s3fs sends as If-None-Match: *
    assert store.objects == {"bucket/path/registry/history/000001.json": b"1"}
    assert not over(store).make("history/000001.json", b"2")


@pytest.mark.parametrize("kind", [Odd, Lossy])
def test_whatever_a_store_says_what_is_there_tells_who_made_it(kind: type[Store]) -> None:
    found = over(kind())
    assert found.make("history/000001.json", b"1")
    assert found.make("history/000001.json", b"1"), "it was made before, and the answer lost"
    assert not found.make("history/000001.json", b"2")
    assert found.read("history/000001.json") == b"1"


def test_a_store_that_writes_over_what_it_was_to_make_is_found_out() -> None:
    over(Store()).try_exclusive()
    with pytest.raises(StageError, match=r"remote 'storage', s3://bucket/path wrote over a file .* two could win"):
        over(Forgetful()).try_exclusive()


def test_a_kind_of_remote_on_which_two_could_win_is_read_alone() -> None:
    store = Store()
    over(store).check_exclusive()
    store.protocol = "ssh"
    with pytest.raises(StageError, match=r"can be read and not promoted to: local, s3, gs, azure .* ssh does not"):
        over(store).check_exclusive()


def test_a_remote_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LIMIT_S", 0.1)
    answered, store, started = threading.Event(), Store(), time.monotonic()
    monkeypatch.setattr(store, "read_bytes", lambda _: answered.wait())
    with pytest.raises(StageError, match=r"champion\.json cannot be read: no answer within 0\.1 s"):
        over(store).read("champion.json")
    assert time.monotonic() - started < 3
    answered.set()


def test_what_a_remote_refuses_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentials(Exception):
        """As each kind of remote has its own."""

    def refuse(*_: Any, **__: Any) -> None:
        raise NoCredentials("no credentials")

    store = Store()
    for name in ("read_bytes", "put_file", "pipe_file"):
        monkeypatch.setattr(store, name, refuse)
    found, beginning = over(store), "the remote 'storage', s3://bucket/path: champion.json"
    with pytest.raises(StageError, match=f"{beginning} cannot be read: no credentials"):
        found.read("champion.json")
    with pytest.raises(StageError, match=f"{beginning} cannot be written: no credentials"):
        found.write("champion.json", b"")
    with pytest.raises(StageError, match=f"{beginning} cannot be read: no credentials"):
        found.make("champion.json", b"")


def test_without_a_default_remote_there_is_none_and_dvc_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "dvc.config", None)  # an import fails
    assert remote.configured() is None
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n['remote \"other\"']\n    url = /nowhere\n")
    assert remote.configured() is None


def test_it_is_the_default_remote_of_the_project_by_the_local_configuration_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name_remote(tmp_path, "../one")
    name_remote(tmp_path, "../two", "config.local")
    (tmp_path / "one").mkdir()
    with pytest.raises(StageError, match=f"there is no folder {tmp_path}/two; mount it, or make it"):
        remote.configured()
    (tmp_path / ".dvc/config.local").write_text("[core]\n    remote =\n")
    assert remote.configured() is None
    (tmp_path / ".dvc/config.local").unlink()
    found = remote.configured()
    assert found
    assert (found.path, str(found)) == (f"{tmp_path}/one/registry", f"the remote 'storage', {tmp_path}/one")


def test_in_a_nights_checkout_it_is_that_of_the_persons_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name_remote(tmp_path, "../one")
    (tmp_path / "one").mkdir()
    (tmp_path / ".cache/checkout").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / ".cache/checkout")
    monkeypatch.setattr(night, "_trees", [tmp_path])
    found = remote.configured()
    assert found
    assert found.path == f"{tmp_path}/one/registry"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("[core]\nremote = gone\n", "remote 'gone' doesn't exist"),
        ("[core]\nremote = a\n['remote \"a\"']\nurl = odd://x\n", "odd"),
        ("[core\nremote = a\n", "."),
    ],
)
def test_a_configuration_that_cannot_be_used_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(config)
    with pytest.raises(StageError, match=f"DVC's default remote cannot be used: .*{reason}"):
        remote.configured()


def test_a_password_in_its_url_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name_remote(tmp_path, "http://ana:secret@127.0.0.1:9/storage")
    assert str(remote.configured()) == "the remote 'storage', http://127.0.0.1:9/storage"
