"""The registry of several machines and that at their remote: what counts, what is refused, how they come together."""

import errno
import gc
import json
import multiprocessing
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec.asyn
import pytest

from flows import promote, pull_champion, rollback
from flows.promotion import history, shared, store
from flows.promotion.history import Conflict, Entry
from flows.promotion.remote import Remote
from serving import champion
from tasks.gates import serving
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.harness.records import to_json, write_json
from tests.flows.promotion.conftest import ENTRY, OnTheDisk, Variant, name_remote
from tests.flows.promotion.test_killed import each_step
from tests.support.loopback import answering
from tests.support.params import ROOT


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is the remote, of a project in the working directory."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    name_remote(Path(), "../../world/storage")
    (tmp_path / "world/storage").mkdir(parents=True)
    return tmp_path / "world/storage"


@pytest.fixture
def machine(storage: Path) -> Callable[[str], Path]:
    """Return the folder of the registry on a machine of that name."""
    return lambda name: storage.parent / name


def following(root: Path, note: str) -> Entry:
    """Keep a model that is called so, and return the entry that would put it into service after those that are here."""
    entries, model = history.read(root), f"model {note}".encode()
    digest = sha256(model).hexdigest()
    return replace(
        ENTRY,
        number=len(entries) + 1,
        replaces=entries[-1].model if entries else None,
        model=digest,
        size=len(model),
        files=store.put(root, digest, {"model.onnx": model, "golden.json": f"golden {note}".encode()}),
        by=f"ana@{root.name}",
        reason=note,
    )


def put_into_service(root: Path, note: str) -> Entry:
    shared.read(root)
    entry = following(root, note)
    shared.append(root, entry)
    return entry


def pull(root: Path) -> Entry:
    return shared.pull(root, lambda _: None)


def pull_all(root: Path) -> list[Entry]:
    pull(root)
    return whole(root)


def whole(root: Path) -> list[Entry]:
    """Return the history, whose pointer is right and whose last model is there as it was put into service."""
    pointer = (root / "champion.json").read_text()  # before who reads the history puts it right
    entries = history.read(root)
    assert pointer == to_json(asdict(history.champion(entries[-1])))
    store.check(root, entries[-1])
    return entries


Machine = Callable[[str], Path]


def test_what_is_put_into_service_is_at_the_remote_as_it_is_here(storage: Path, machine: Machine) -> None:
    first, second = put_into_service(machine("a"), "1"), put_into_service(machine("a"), "2")
    assert whole(storage / "registry") == whole(machine("a")) == [first, second]
    names = {str(path.relative_to(storage / "registry")) for path in storage.rglob("*") if path.is_file()}
    models = {f"{entry.model}/{name}" for entry in (first, second) for name in ("model.onnx", "golden.json")}
    expected = {"champion.json", "history/000001.json", "history/000002.json", "history/exclusive", *models}
    assert names == expected


def test_the_names_of_folders_are_on_the_disk_before_the_entry_is(
    storage: Path, machine: Machine, on_the_disk: OnTheDisk
) -> None:
    root = machine("new") / "registry"
    entry = put_into_service(root, "1")
    for registry in (root, storage / "registry"):
        model = registry / entry.model
        names = [registry, registry / "history", model, *model.iterdir()]
        assert [path for path in names if not on_the_disk(path, registry / entry.name)] == []
    assert on_the_disk(root.parent, root / entry.name)


def test_another_machine_goes_on_from_there(storage: Path, machine: Machine) -> None:
    first = put_into_service(machine("a"), "1")
    second = put_into_service(machine("b"), "2")
    assert second.replaces == first.model
    third = put_into_service(machine("a"), "3")
    assert whole(machine("a")) == [first, second, third]
    assert shared.read(machine("b")) == [first, second, third]
    assert pull(machine("c")) == third
    assert whole(machine("c")) == whole(storage / "registry") == [first, second, third]


def test_models_are_fetched_when_they_are_needed(machine: Machine) -> None:
    put_into_service(machine("a"), "1")
    first, second = history.read(machine("a"))[0], put_into_service(machine("a"), "2")
    shared.read(machine("b"))
    assert not (machine("b") / "champion.json").exists(), "it would name a model that is not here"
    assert shared.folder(machine("b"), first) == machine("b") / first.model
    assert not (machine("b") / second.model).exists()
    shared.folder(machine("b"), second)
    assert whole(machine("b")) == [first, second]


def test_a_remote_that_is_added_later_gets_what_is_here_and_says_so(
    storage: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(".dvc/config").read_text()
    Path(".dvc/config").write_text("")
    first, second = put_into_service(machine("a"), "1"), put_into_service(machine("a"), "2")
    assert not any(storage.iterdir())
    Path(".dvc/config").write_text(config)
    assert capsys.readouterr().out == ""
    third = put_into_service(machine("a"), "3")
    assert re.findall(
        r"^entry (\d), (\w+), is brought to the remote 'storage', ", capsys.readouterr().out, re.MULTILINE
    ) == [
        ("1", first.version),
        ("2", second.version),
    ]
    assert whole(storage / "registry") == [first, second, third]
    for entry in (first, second, third):
        store.check(storage / "registry", entry)


def test_two_histories_that_do_not_belong_together_are_left_as_they_are(storage: Path, machine: Machine) -> None:
    put_into_service(machine("a"), "1")
    config = Path(".dvc/config").read_text()
    Path(".dvc/config").write_text("")
    put_into_service(machine("b"), "2")
    Path(".dvc/config").write_text(config)
    before = files(storage.parent)
    for act in (shared.read, pull):
        with pytest.raises(StageError, match=r"history/000001\.json are different entries"):
            act(machine("b"))
    assert files(storage.parent) == before


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_promotion_that_is_overtaken_on_another_machine_leaves_no_entry(storage: Path, machine: Machine) -> None:
    first = put_into_service(machine("a"), "1")
    late = following(machine("a"), "late")
    second = put_into_service(machine("b"), "2")
    with pytest.raises(Conflict, match="entry 2 has been made at the remote 'storage'"):
        shared.append(machine("a"), late)
    assert history.read(machine("a")) == [first]
    assert shared.read(machine("a")) == whole(storage / "registry") == [first, second]


def test_another_process_may_bring_the_entry_here_first(
    storage: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = shared._publish

    def and_bring(root: Path, remote: Remote, entry: Entry) -> None:
        publish(root, remote, entry)
        shared.bring(root, [entry])
        history.read(root)  # as that process does

    monkeypatch.setattr(shared, "_publish", and_bring)
    entry = put_into_service(machine("a"), "1")
    assert whole(machine("a")) == whole(storage / "registry") == [entry]


def test_a_pointer_that_comes_late_is_not_the_last(
    storage: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_service(machine("a"), "1")
    write = Remote.write

    def late(self: Remote, name: str, content: bytes) -> None:
        if name == "champion.json":
            monkeypatch.setattr(Remote, "write", write)
            put_into_service(machine("b"), "3")
        write(self, name, content)

    monkeypatch.setattr(Remote, "write", late)
    put_into_service(machine("a"), "2")
    assert [entry.reason for entry in whole(storage / "registry")] == ["1", "2", "3"]


def _promote_five(own: str, root: Path) -> None:
    made = 0
    while made < 5:
        try:
            put_into_service(root, f"{own} {made}")
        except Conflict:
            continue
        made += 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on, where there are threads
def test_of_machines_that_promote_at_once_one_wins_each_time(storage: Path, machine: Machine) -> None:
    shared.read(machine("a"))  # DVC is imported now, in one thread
    context = multiprocessing.get_context("fork")
    # Two of them share a registry, as a night and a person do.
    roots = [machine("a"), machine("b"), machine("b")]
    promoters = [context.Process(target=_promote_five, args=(str(own), root)) for own, root in enumerate(roots)]
    for promoter in promoters:
        promoter.start()
    pointer = storage / "registry/champion.json"
    while any(promoter.is_alive() for promoter in promoters):
        if pointer.exists():
            found = json.loads(pointer.read_text())
            content = (storage / "registry" / found["path"]).read_bytes()
            assert sha256(content).hexdigest() == found["sha256"]
    assert [promoter.exitcode for promoter in promoters] == [0] * 3
    entries = whole(storage / "registry")
    assert sorted(str(entry.reason) for entry in entries) == [f"{own} {made}" for own in range(3) for made in range(5)]
    for name in ("a", "b", "c"):
        pull(machine(name))
        assert whole(machine(name)) == entries


def _roll_back_five(root: Path) -> None:
    """Put one of the first two models back, the one that is not in service."""
    made = 0
    while made < 5:
        entries = history.read(root)
        earlier = entries[1 if entries[-1].model == entries[0].model else 0]
        try:
            rollback.rollback(root, "", earlier.model, "odd boots")
        except Conflict:
            continue
        made += 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on, where there are threads
def test_of_rollbacks_and_promotions_at_once_one_wins_each_time_and_a_reader_has_a_whole_model_throughout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no remote
    monkeypatch.setattr(rollback, "try_model", lambda *_: Verdict("serving", "passed"))
    root = tmp_path / "registry"
    before = [put_into_service(root, note) for note in ("first", "second")]
    context = multiprocessing.get_context("fork")
    rivals = [context.Process(target=_promote_five, args=(own, root)) for own in ("a", "b")]
    rivals.append(context.Process(target=_roll_back_five, args=(root,)))
    for rival in rivals:
        rival.start()
    seen = []
    while any(rival.is_alive() for rival in rivals):
        seen.append(champion.required(root))
        champion.content(root, seen[-1])  # compared with its SHA-256
    assert [rival.exitcode for rival in rivals] == [0] * 3
    entries = whole(root)
    assert entries[:2] == before
    assert sorted(str(entry.reason) for entry in entries[2:]) == sorted(
        [f"{own} {made}" for own in "ab" for made in range(5)] + ["odd boots"] * 5
    )
    numbers = [one.number for one in seen]
    assert numbers == sorted(numbers)
    assert all(one == history.champion(entries[one.number - 1]) for one in seen)


def damaged(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.fixture
def bytes_of(storage: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[bytes], bytes]], None]:
    """Have the remote give other bytes of files of a name than those that it has."""
    from dvc_objects.fs.local import FsspecLocalFileSystem

    true = FsspecLocalFileSystem.cat_file

    def change(name: str, how: Callable[[bytes], bytes]) -> None:
        def read(self: object, path: str, *_: Any, **__: Any) -> bytes:
            content: bytes = true(self, path)
            return how(content) if path.endswith(name) else content

        monkeypatch.setattr(FsspecLocalFileSystem, "cat_file", read)

    return change


@pytest.mark.parametrize("name", ["model.onnx", "golden.json"])
@pytest.mark.parametrize("how", [damaged, lambda content: content[:3], lambda _: b""], ids=["bit", "cut off", "empty"])
def test_what_the_remote_gives_back_otherwise_is_not_put_into_service(
    storage: Path, machine: Machine, bytes_of: Callable[..., None], name: str, how: Callable[[bytes], bytes]
) -> None:
    first = put_into_service(machine("a"), "1")
    bytes_of(name, how)
    with pytest.raises(StageError, match=rf"{name} was written and read back, and has the SHA-256 .*nothing was put"):
        put_into_service(machine("a"), "2")
    assert whole(machine("a")) == whole(storage / "registry") == [first]
    bytes_of(name, lambda content: content)
    second = put_into_service(machine("a"), "2")
    assert whole(machine("a")) == whole(storage / "registry") == [first, second]


@pytest.mark.parametrize("name", ["model.onnx", "golden.json"])
@pytest.mark.parametrize("damage", ["edit", "remove"])
def test_a_champion_that_is_damaged_at_the_remote_is_not_pulled(
    storage: Path, machine: Machine, name: str, damage: str
) -> None:
    entry = put_into_service(machine("a"), "1")
    path = storage / "registry" / entry.model / name
    path.unlink() if damage == "remove" else path.write_bytes(damaged(path.read_bytes()))
    with pytest.raises(StageError, match=rf"{entry.model}: {name} missing, or not what entry 1 put into service"):
        pull(machine("b"))
    assert not machine("b").exists() or not any(machine("b").iterdir())


def test_a_model_that_has_rotted_at_the_remote_is_mended_by_who_puts_it_back(storage: Path, machine: Machine) -> None:
    first = put_into_service(machine("a"), "1")
    put_into_service(machine("a"), "2")
    (storage / "registry" / first.model / "model.onnx").write_bytes(b"rot")
    put_into_service(machine("a"), "1")
    store.check(storage / "registry", first)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not what a stage wrote"),
        (b"\xff", "is not what a stage wrote"),
        (b"{}", "is not what a stage wrote"),
        (b'{"schema_version": 9}', "has schema version 9"),
    ],
)
def test_an_entry_that_is_none_is_named(storage: Path, machine: Machine, content: bytes, reason: str) -> None:
    put_into_service(machine("a"), "1")
    (storage / "registry/history/000002.json").write_bytes(content)
    for root in (machine("a"), machine("b")):
        with pytest.raises(StageError, match=f"{storage}/registry/history/000002.json {reason}"):
            shared.read(root)
        with pytest.raises(StageError, match=f"{storage}/registry/history/000002.json {reason}"):
            pull(root)
    assert len(whole(machine("a"))) == 1


def test_entries_that_do_not_follow_are_not_brought_here(storage: Path, machine: Machine) -> None:
    first = put_into_service(machine("a"), "1")
    path = storage / "registry/history/000002.json"
    for wrong in (replace(first, number=2, replaces="0" * 64), replace(first, number=3, replaces=first.model)):
        write_json(path, asdict(wrong))
        with pytest.raises(StageError, match=r"000002\.json (replaces 0000|should be entry 2)|should be entry 2"):
            shared.read(machine("a"))
        assert whole(machine("a")) == [first]


def test_a_model_under_another_digest_is_not_brought_here(storage: Path, machine: Machine) -> None:
    first = put_into_service(machine("a"), "1")
    content = (storage / "registry" / first.model / "model.onnx").read_bytes()
    other = storage / "registry" / ("0" * 64)
    other.mkdir()
    (other / "model.onnx").write_bytes(content)
    wrong = replace(first, number=2, replaces=first.model, model="0" * 64, files={"model.onnx": first.model})
    write_json(storage / "registry/history/000002.json", asdict(wrong))
    with pytest.raises(StageError, match=r"model\.onnx of that SHA-256 missing"):
        pull(machine("a"))
    assert whole(machine("a")) == [first]
    assert not (machine("a") / ("0" * 64)).exists()


def test_a_hole_in_the_history_of_the_remote_is_not_filled_with_another_entry(storage: Path, machine: Machine) -> None:
    for note in ("1", "2", "3"):
        put_into_service(machine("a"), note)
    (storage / "registry/history/000002.json").unlink()
    with pytest.raises(StageError, match=r"champion\.json names entry 3, and .* lacks 2"):
        put_into_service(machine("b"), "4")


@pytest.mark.parametrize("pointer", [None, b"old"])
def test_a_pointer_that_a_kill_has_left_behind_is_put_right_by_the_next(
    storage: Path, machine: Machine, pointer: bytes | None
) -> None:
    path = storage / "registry/champion.json"
    put_into_service(machine("a"), "1")
    old = path.read_bytes()
    put_into_service(machine("a"), "2")
    path.unlink() if pointer is None else path.write_bytes(old)
    shared.read(machine("a"))
    assert len(whole(storage / "registry")) == 2


def test_a_share_that_is_not_mounted_is_no_empty_remote(storage: Path, machine: Machine) -> None:
    first = put_into_service(machine("a"), "1")
    storage.rename(storage.with_name("away"))
    with pytest.raises(StageError, match=f"there is no folder {storage}; mount it, or make it"):
        put_into_service(machine("a"), "2")
    storage.mkdir()  # the place to mount it is there
    for act in (partial(put_into_service, note="2"), pull):
        with pytest.raises(
            StageError, match=r"has had entry 1, and has history up to 0 of those here: is it mounted\?"
        ):
            act(machine("a"))
    assert not any(storage.iterdir())
    assert whole(machine("a")) == [first]
    (machine("a") / "remote.json").unlink()  # as the message says
    shared.read(machine("a"))
    assert whole(storage / "registry") == [first]


@pytest.mark.parametrize("call", ["put_file", "cat_file", "link"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_remote_that_is_full_read_only_or_broken_takes_nothing_and_leaves_all_as_it_was(
    storage: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    from dvc_objects.fs.local import FsspecLocalFileSystem

    first = put_into_service(machine("a"), "1")
    before = whole(storage / "registry")

    def fail(*arguments: Any, **_: Any) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "link" else FsspecLocalFileSystem, call, fail)
        with pytest.raises(StageError, match=f"the remote 'storage', {storage}: .*{os.strerror(error)}"):
            put_into_service(machine("a"), "2")
    assert whole(machine("a")) == whole(storage / "registry") == before == [first]
    second = put_into_service(machine("a"), "2")
    assert whole(machine("a")) == whole(storage / "registry") == [first, second]


def test_an_entry_that_this_machine_cannot_keep_counts_all_the_same(
    storage: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put_into_service(machine("a"), "1")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(history, "append", full)
        with pytest.raises(StageError, match="No space left on device; entry 2 is made all the same, at the remote"):
            put_into_service(machine("a"), "2")
    assert whole(machine("a")) == [first]
    shared.read(machine("a"))
    assert len(whole(machine("a"))) == 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_promotion_that_is_killed_before_any_step_is_whole_and_goes_on(
    storage: Path, machine: Machine, tmp_path: Path
) -> None:
    put_into_service(machine("a"), "1")
    found = set()
    for _ in each_step(storage.parent, tmp_path / "spare", lambda: put_into_service(machine("a"), "2")):
        here = history.read(machine("a"))
        there = pull_all(machine("b"))  # what another machine finds is whole
        found.add((len(there), len(here)))
        entries = shared.read(machine("a"))
        if len(entries) == 1:
            put_into_service(machine("a"), "2")
        assert len(shared.read(machine("a"))) == 2
        assert whole(machine("a")) == whole(storage / "registry")
    assert found == {(1, 1), (2, 1), (2, 2)}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_pull_that_is_killed_before_any_step_leaves_a_pointer_to_a_model_that_is_there(
    storage: Path, machine: Machine, tmp_path: Path
) -> None:
    first = put_into_service(machine("a"), "1")
    pull(machine("b"))
    for note in ("2", "3"):
        put_into_service(machine("a"), note)
    for _ in each_step(storage.parent, tmp_path / "spare", lambda: pull(machine("b"))):
        history.read(machine("b"))
        pointer = json.loads((machine("b") / "champion.json").read_text())
        assert (machine("b") / pointer["path"]).exists()
        assert pointer["number"] in (first.number, 3)
        pull(machine("b"))
        assert whole(machine("b")) == whole(storage / "registry")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_remote_that_is_added_later_is_filled_after_a_kill_at_any_step(
    storage: Path, machine: Machine, tmp_path: Path
) -> None:
    config = Path(".dvc/config").read_text()
    Path(".dvc/config").write_text("")
    entries = [put_into_service(machine("a"), note) for note in ("1", "2")]
    Path(".dvc/config").write_text(config)
    for _ in each_step(storage.parent, tmp_path / "spare", lambda: shared.read(machine("a"))):
        assert shared.read(machine("a")) == entries
        assert whole(storage / "registry") == whole(machine("a")) == entries


class Served(SimpleHTTPRequestHandler):
    """Files of a folder, without a word."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url(storage: Path) -> Iterator[str]:
    """Where the remote is served on loopback, which is the default remote from then on."""
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(storage)))) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_over_http_it_is_pulled_and_not_promoted_to(machine: Machine, url: str) -> None:
    entries = [put_into_service(machine("a"), note) for note in ("1", "2")]
    name_remote(Path(), url)
    assert pull(machine("b")) == pull(machine("b")) == entries[-1]
    assert whole(machine("b")) == entries
    with pytest.raises(StageError, match=r"can be read and not promoted to: .* http does not"):
        put_into_service(machine("b"), "3")


def test_its_connections_are_closed_whichever_thread_collects_the_garbage(machine: Machine, url: str) -> None:
    put_into_service(machine("a"), "1")
    name_remote(Path(), url)
    gc.disable()  # else another thread may
    try:
        pull(machine("b"))
        fsspec.asyn.sync(fsspec.asyn.get_loop(), collect)
    finally:
        gc.enable()


async def collect() -> None:
    gc.collect()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("sha256sum")), reason="curl and sha256sum are needed")
def test_the_lines_for_curl_get_the_champion_or_fail(storage: Path, machine: Machine, url: str, tmp_path: Path) -> None:
    put_into_service(machine("a"), "1")
    entry = put_into_service(machine("a"), "2")
    readme = (ROOT / "README.md").read_text()
    lines = readme[readme.index("url=https://") :].partition("```")[0].replace("https://example.com/path", url)
    answer = subprocess.run(("sh", "-ec", lines), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "model.onnx: OK\n"), answer.stderr
    assert (tmp_path / "model.onnx").read_bytes() == b"model 2"
    (storage / "registry" / entry.model / "model.onnx").write_bytes(b"model 3")
    answer = subprocess.run(("sh", "-ec", lines), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert "model.onnx: FAILED" in answer.stdout


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "DVC has no default remote to pull from"),
        ("../../world/storage", "has no model in service: make promote, where one was trained, puts the first there"),
        ("../../world/gone", "there is no folder .*/world/gone; mount it, or make it"),
        ("http://127.0.0.1:9", r"champion\.json cannot be read: "),
    ],
)
def test_there_is_nothing_to_pull(storage: Path, machine: Machine, config: str | None, reason: str) -> None:
    name_remote(Path(), config) if config else Path(".dvc/config").unlink()
    with pytest.raises(StageError, match=reason):
        pull(machine("b"))
    assert not machine("b").exists()


@pytest.fixture
def published(ready: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The registry, with a model in service that is at the remote, too."""
    name_remote(Path(), "../storage")
    Path("storage").mkdir()
    promote.main([])
    return ready


def test_the_champion_is_pulled_tried_and_told_in_a_line(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = whole(published)
    there = tmp_path / "another machine"
    monkeypatch.setenv("REGISTRY", str(there))
    capsys.readouterr()
    for _ in range(2):
        pull_champion.main([])
        tried, *_, model, line = capsys.readouterr().out.splitlines()
        assert tried.startswith("serving    passed: golden requests ")
        assert (model, line) == (f"{there / entry.model / 'model.onnx'} is in service:", entry.line)
    assert whole(there) == [entry]
    store.check(there, entry)


def test_one_that_does_not_answer_here_does_not_come_into_service(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY", str(tmp_path / "there"))
    failed = Verdict("serving", "failed", ["3 of 20 golden requests get another answer"])
    monkeypatch.setattr(serving, "gate", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match=r"^pull-champion: .* is not put into service: failed: 3 of 20"):
        pull_champion.main([])
    assert history.read(tmp_path / "there") == []
    assert not (tmp_path / "there/champion.json").exists()


def test_another_machine_rolls_back_to_a_model_that_it_never_had(
    published: Path, variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant("another")
    promote.main(["--force", "--reason", "x"])
    first, second = history.read(published)
    monkeypatch.setenv("REGISTRY", str(tmp_path / "there"))
    rollback.main(["--reason", "odd boots"])
    assert [entry.model for entry in whole(tmp_path / "there")] == [first.model, second.model, first.model]
    assert whole(Path("storage/registry")) == whole(tmp_path / "there")


def test_what_is_damaged_here_is_pulled_anew_once_it_is_removed(published: Path) -> None:
    (entry,) = whole(published)
    path = published / entry.model / "golden.json"
    path.chmod(0o644)
    path.write_bytes(b"{}")
    with pytest.raises(SystemExit, match=r"golden\.json missing, .*; or remove it, and make pull-champion "):
        pull_champion.main([])
    shutil.rmtree(published / entry.model)
    pull_champion.main([])
    assert whole(published) == [entry]
