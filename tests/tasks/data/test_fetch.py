"""Archives from whichever source delivers them whole."""

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torchvision
from PIL import Image

from tasks import download
from tasks.data import datasets, fetch
from tests.support.made import CIFAR10, made, made_rows, made_sprites, with_archives
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


BATCHES = [Path(archive.name).stem for archive in CIFAR10.archives[1:]]


@pytest.fixture
def sprites(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The sprites and labels of a made CIFAR-10, whose publisher's archive is on no mirror."""
    write_params(download={"dataset": "cifar10"})
    files, instead = made_sprites()
    row = replace(with_archives(datasets.DATASETS["cifar10"], made("cifar10")), instead=instead)
    monkeypatch.setitem(datasets.DATASETS, "cifar10", row)
    return files


def put(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder of CIFAR-10 in DATA_MIRROR hold these files."""
    folder = Path("mirror/cifar10")
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    monkeypatch.setenv("DATA_MIRROR", "mirror")
    return folder


def in_raw() -> list[str]:
    return sorted(str(path.relative_to("data/raw")) for path in Path("data/raw").rglob("*") if path.is_file())


OF_SPRITES = ["cifar-10-batches-bin/" + name for name in (*(f"{batch}.bin" for batch in BATCHES[:5]), "labels.bin")]
OF_SPRITES.append("cifar-10-batches-bin/test_batch.bin")


@pytest.mark.parametrize("by", ["folder", "url"])
def test_sprites_become_the_publishers_binary_batches(
    sprites: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    with serve(sprites) as server:
        if by == "folder":
            put(sprites, monkeypatch)
        else:
            monkeypatch.setenv("DATA_MIRROR", server.url("ok"))
        assert fetch.answers("cifar10")
        download.main()
    assert in_raw() == OF_SPRITES
    for number, batch in enumerate(BATCHES):
        rows, labels = made_rows(number, 8)
        binary = b"".join(bytes((label,)) + row.tobytes() for label, row in zip(labels, rows, strict=True))
        assert Path(f"data/raw/cifar-10-batches-bin/{batch}.bin").read_bytes() == binary
    monkeypatch.delenv("DATA_MIRROR")
    shutil.rmtree(fetch.CACHE)
    assert fetch.answers("cifar10"), "it is in data/raw"


def test_of_a_mirror_with_both_the_publishers_archive_is_taken(
    sprites: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sprites | made("cifar10"), monkeypatch)
    download.main()
    assert "cifar-10-python.tar.gz" in in_raw()
    assert not set(in_raw()) & set(OF_SPRITES)
    Path("mirror/cifar10/cifar-10-python.tar.gz").unlink()
    download.main()
    assert "cifar-10-python.tar.gz" in in_raw(), "it was fetched before"


def test_sprites_are_asked_of_no_public_mirror(sprites: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(sprites) as server:
        row = replace(datasets.DATASETS["cifar10"], mirrors=(server.url("ok"),))
        monkeypatch.setitem(datasets.DATASETS, "cifar10", row)
        assert "no source delivered cifar-10-python.tar.gz" in refusal()
        assert server.requests["ok"] == fetch.ATTEMPTS


@pytest.mark.parametrize("missing", ["labels.bin", "data_batch_1.webp", "test_batch.webp"])
def test_half_a_set_of_sprites_is_none(
    sprites: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = put({name: contents for name, contents in sprites.items() if name != missing}, monkeypatch).resolve()
    monkeypatch.setenv("PUBLIC_MIRRORS", "off")
    message = refusal()
    reason = f"{folder}: {missing}, one of 7 files of which all are needed: No such file or directory\n"
    assert f"Tried:\n  {folder}: No such file or directory\n  {reason}Set DATA_MIRROR" in message
    assert "cifar10/cifar-10-python.tar.gz or all of labels.bin, data_batch_1.webp, " in message
    monkeypatch.setenv("PUBLIC_MIRRORS", "on")
    capsys.readouterr()
    with serve(made("cifar10")) as server:
        row = replace(datasets.DATASETS["cifar10"], mirrors=(server.url("ok"),))
        monkeypatch.setitem(datasets.DATASETS, "cifar10", row)
        download.main()
    assert "cifar-10-python.tar.gz" in in_raw()
    assert (reason in capsys.readouterr().out) == (missing != "labels.bin")


def test_of_sprites_only_the_rest_is_fetched_and_later_none(
    sprites: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    last = sprites.pop("test_batch.webp")
    with serve(sprites) as server:
        monkeypatch.setenv("DATA_MIRROR", server.url("ok"))
        monkeypatch.setenv("PUBLIC_MIRRORS", "off")
        refusal()
        asked = server.requests["ok"]
        server.files["test_batch.webp"] = last
        (fetch.CACHE / "cifar10/data_batch_2.bin").write_bytes(b"rot")
        download.main()
        assert server.requests["ok"] == asked + 3, "the archive, the batch that rotted, the one that was missing"
        first = {name: Path("data/raw", name).read_bytes() for name in in_raw()}
    monkeypatch.delenv("DATA_MIRROR")
    download.main()
    put(made("cifar10"), monkeypatch)
    download.main()
    assert {name: Path("data/raw", name).read_bytes() for name in in_raw()} == first
    assert sorted(first) == OF_SPRITES


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (128, 64), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def picture(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("file", "contents", "reason"),
    [
        ("data_batch_3.webp", b"", "not a PNG, JPEG, WebP or BMP image"),
        ("data_batch_3.webp", b"<html>", "not a PNG, JPEG, WebP or BMP image"),
        ("data_batch_3.webp", "cut", "broken image ("),
        ("data_batch_3.webp", animated(), "an animation of 2 frames"),
        ("data_batch_3.webp", (64, 64), "64 x 64 pixels are not 8 images of 32 x 32 in rows"),
        ("data_batch_3.webp", (130, 64), "130 x 64 pixels are not 8 images of 32 x 32 in rows"),
        ("data_batch_3.webp", (16, 16), "16 x 16 pixels are not 8 images of 32 x 32 in rows"),
        ("data_batch_3.webp", (8000, 8000), "8000 x 8000 pixels are more than 50,000,000"),
        ("data_batch_3.webp", (16000, 16000), "more than 50,000,000 pixels"),
        ("labels.bin", b"\0" * 47, "sent 47 bytes instead of 48"),
    ],
    ids=["empty", "no image", "cut", "animated", "small", "no multiple", "tiny", "large", "bomb", "few labels"],
)
def test_what_is_no_sprite_is_refused(
    sprites: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    contents: bytes | str | tuple[int, int],
    reason: str,
) -> None:
    if isinstance(contents, tuple):
        contents = picture(contents)
    put(sprites | {file: sprites[file][:-1000] if isinstance(contents, str) else contents}, monkeypatch)
    assert f"{file}, one of 7 files of which all are needed: {reason}" in refusal()
    assert f"{Path(file).stem}.bin" not in {path.name for path in (fetch.CACHE / "cifar10").iterdir()}


@pytest.mark.parametrize("file", ["data_batch_3.webp", "labels.bin"])
def test_other_images_or_labels_are_refused_by_both_checksums(
    sprites: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    instead = datasets.DATASETS["cifar10"].instead
    assert instead
    name, right = ("data_batch_3.bin", instead.archives[3].md5) if "batch" in file else (file, instead.archives[0].md5)
    what = "other images or labels: as data_batch_3.bin their" if "batch" in file else "other bytes: their"
    put(sprites | {file: sprites["data_batch_2.webp"] if "batch" in file else b"\1" * 48}, monkeypatch)
    reason = rf"{file}, one of 7 files of which all are needed: sent {what} MD5 is [0-9a-f]{{32}}, not {right}"
    assert re.search(reason, refusal())
    assert not (fetch.CACHE / "cifar10" / name).exists()


def test_a_pillow_without_webp_is_named(sprites: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    put(sprites, monkeypatch)
    monkeypatch.setattr("tasks.data.sprites.features.check", lambda _: False)
    assert "data_batch_1.webp, one of 7 files of which all are needed: this Pillow is built without WebP" in refusal()
