"""Archives from whichever source delivers them whole."""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torchvision

from tasks import download
from tasks.data import datasets, fetch
from tests.support.made import made, with_archives
from tests.support.mirror import Mirror, serve
from tests.support.params import write_params

RAW = Path("data/raw/FashionMNIST/raw")
IMAGES = "train-images-idx3-ubyte.gz"


@pytest.fixture
def mirror(archives: dict[str, bytes]) -> Iterator[Mirror]:
    with serve(dict(archives)) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT_S", (0.2, 0.2))
    monkeypatch.setattr(fetch, "PROBE_S", 0.5)
    monkeypatch.setattr("tasks.data.fetch.time.sleep", lambda _: None)


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    row = replace(datasets.DATASETS["fashion_mnist"], mirrors=urls)
    monkeypatch.setitem(datasets.DATASETS, "fashion_mnist", row)


def refusal() -> str:
    """Run the stage, which has to fail and to publish nothing, and return what it says."""
    before = sorted(Path("data").rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        download.main()
    assert sorted(Path("data").rglob("*")) == before
    assert isinstance(stopped.value.code, str)
    return stopped.value.code


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_tar_file_is_unpacked_where_torchvision_keeps_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(download={"dataset": name})
    files = made(name)
    monkeypatch.setitem(datasets.DATASETS, name, with_archives(datasets.DATASETS[name], files))
    assert not fetch.answers(name)
    with serve(files) as server:
        monkeypatch.setenv("DATA_MIRROR", server.url("ok"))
        download.main()
    ((archive, contents),) = files.items()
    assert (Path("data/raw") / archive).read_bytes() == contents
    Path("theirs").mkdir()
    subprocess.run(("tar", "-xzf", Path("data/raw") / archive, "-C", "theirs"), check=True)
    folder = datasets.DATASETS[name].folder
    ours, theirs = (
        {path.name: path.read_bytes() for path in (root / folder).iterdir()}
        for root in (Path("data/raw"), Path("theirs"))
    )
    assert ours == theirs
    assert ours
    monkeypatch.delenv("DATA_MIRROR")
    shutil.rmtree(fetch.CACHE)
    assert fetch.answers(name), "it is in data/raw"


def test_a_tar_file_writes_nothing_outside_its_folder(tmp_path: Path) -> None:
    packed = tmp_path / "evil.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil"))
    with pytest.raises(tarfile.FilterError):
        fetch.unpack([packed], tmp_path / "raw/folder")
    assert not (tmp_path / "evil").exists()


def test_a_mirror_folder_is_enough(
    workspace: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace / "mirror/fashion_mnist"
    folder.mkdir(parents=True)
    for name, data in archives.items():
        (folder / name).write_bytes(data)
    monkeypatch.setenv("DATA_MIRROR", "mirror")
    download.main()
    assert {path.name: path.read_bytes() for path in RAW.glob("*.gz")} == archives
    assert (RAW / "train-images-idx3-ubyte").read_bytes() == gzip.decompress(archives[IMAGES])
    torchvision.datasets.FashionMNIST("data/raw", download=False)


def test_a_mirror_url_has_a_folder_for_each_dataset(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_MIRROR", mirror.url("ok").rstrip("/"))
    download.main()
    assert len(list(RAW.iterdir())) == 8


def test_archives_that_are_here_are_not_fetched_again(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mirrors(monkeypatch, mirror.url("ok"))
    download.main()
    download.main()
    assert mirror.requests["ok"] == 4


def test_an_archive_that_has_changed_in_the_cache_is_fetched_again(
    mirror: Mirror, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, mirror.url("ok"))
    download.main()
    (fetch.CACHE / "fashion_mnist" / IMAGES).write_bytes(b"rot")
    download.main()
    assert (RAW / IMAGES).read_bytes() == archives[IMAGES]
    assert mirror.requests["ok"] == 5


@pytest.mark.parametrize("broken", ["404", "500", "hang", "cut"])
def test_the_next_mirror_is_tried(mirror: Mirror, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mirrors(monkeypatch, mirror.url(broken), mirror.url("ok"))
    download.main()
    assert len(list(RAW.iterdir())) == 8


def test_a_mirror_that_fails_once_is_tried_again(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tasks.data.fetch.time.sleep", waits.append)
    use_mirrors(monkeypatch, mirror.url("flaky"))
    download.main()
    assert waits == [1]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("404", "answered 404 Not Found"),
        ("500", "answered 500 Internal Server Error"),
        ("hang", "Read timed out"),
        ("cut", "IncompleteRead"),
    ],
)
def test_every_source_and_its_reason_is_listed(
    mirror: Mirror, broken: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tasks.data.fetch.time.sleep", waits.append)
    monkeypatch.setenv("DATA_MIRROR", str(Path.cwd()))
    use_mirrors(monkeypatch, mirror.url(broken))
    message = refusal()
    assert f"download: no source delivered {IMAGES}" in message
    assert f"{Path.cwd() / 'fashion_mnist'}: No such file or directory" in message
    assert mirror.url(broken) in message
    assert reason in message
    assert "Set DATA_MIRROR" in message
    assert "make run DATASET=digits" in message
    assert mirror.requests[broken] == fetch.ATTEMPTS
    assert waits == [1, 2]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:-1], "sent {less} bytes instead of {size}"),
        (lambda data: data + b"x", "sent {more} bytes instead of {size}"),
        (lambda data: b"", "sent 0 bytes instead of {size}"),
        (lambda data: data[:-1] + bytes((data[-1] ^ 1,)), "sent other bytes: their MD5 is {spoilt}, not {md5}"),
    ],
    ids=["truncated", "too long", "empty", "corrupted"],
)
@pytest.mark.parametrize("by", ["folder", "url"])
def test_a_spoilt_archive_never_passes_for_a_whole_one(  # type: ignore[no-untyped-def]
    workspace: Path, archives: dict[str, bytes], mirror: Mirror, monkeypatch: pytest.MonkeyPatch, spoil, reason, by
) -> None:
    good = archives[IMAGES]
    mirror.files[IMAGES] = spoil(good)
    if by == "folder":
        (workspace / "fashion_mnist").mkdir()
        (workspace / "fashion_mnist" / IMAGES).write_bytes(spoil(good))
        monkeypatch.setenv("DATA_MIRROR", str(workspace))
    else:
        use_mirrors(monkeypatch, mirror.url("ok"))
    md5, spoilt = (hashlib.md5(data).hexdigest() for data in (good, spoil(good)))
    said = reason.format(less=len(good) - 1, more=len(good) + 1, size=len(good), md5=md5, spoilt=spoilt)
    assert said in refusal()
    assert not list((fetch.CACHE / "fashion_mnist").iterdir())


def test_what_a_killed_download_left_is_removed(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    leftover = fetch.CACHE / "fashion_mnist/tmpabc123"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half an archive")
    use_mirrors(monkeypatch, mirror.url("ok"))
    download.main()
    assert not leftover.exists()


def test_a_mirror_that_is_neither_folder_nor_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_MIRROR", "no/such/folder")
    assert "DATA_MIRROR is 'no/such/folder'" in refusal()


def test_a_password_is_not_shown(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_MIRROR", mirror.url("404").replace("http://", "http://someone:secret@"))
    message = refusal()
    assert "secret" not in message
    assert mirror.url("404") in message


def test_answers_finds_what_is_there(workspace: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch.answers("digits")
    use_mirrors(monkeypatch, mirror.url("404"), mirror.url("ok"))
    assert fetch.answers("fashion_mnist")
    use_mirrors(monkeypatch, mirror.url("404"))
    assert not fetch.answers("fashion_mnist")
    monkeypatch.setenv("DATA_MIRROR", str(workspace))
    assert not fetch.answers("fashion_mnist")


def test_answers_needs_no_mirror_for_what_is_placed(
    raw: Path, archives: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, "http://127.0.0.1:9/")
    assert fetch.answers("fashion_mnist")
    (raw / "t10k-images-idx3-ubyte.gz").unlink()
    assert not fetch.answers("fashion_mnist")


def test_answers_does_not_wait_for_a_mirror_that_hangs(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mirrors(monkeypatch, mirror.url("hang"))
    started = time.monotonic()
    assert not fetch.answers("fashion_mnist")
    assert time.monotonic() - started < 2 * fetch.PROBE_S


def test_public_mirrors_are_left_out_where_they_are_off(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mirrors(monkeypatch, mirror.url("ok"))
    monkeypatch.setenv("PUBLIC_MIRRORS", "off")
    assert "Tried: nothing, no mirror is named" in refusal()
    monkeypatch.setenv("DATA_MIRROR", mirror.url("404"))
    assert f"Tried:\n  {mirror.url('404')}fashion_mnist/: answered 404" in refusal()
    assert mirror.requests["ok"] == 0
    monkeypatch.setenv("PUBLIC_MIRRORS", "on")
    download.main()
    assert mirror.requests["ok"] == 4


@pytest.mark.parametrize("word", ["no", "OFF", "1"])
def test_public_mirrors_that_are_neither_on_nor_off_are_refused(
    mirror: Mirror, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, mirror.url("ok"))
    monkeypatch.setenv("PUBLIC_MIRRORS", word)
    assert refusal().startswith(f"download: PUBLIC_MIRRORS is {word!r}: it should be on, or off where only DATA_MIRROR")
    assert not mirror.requests
