"""What no stage has made is not to be removed; what one makes is known, file by file."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import download, transform
from tasks.data import fetch, strangers
from tasks.data.datasets import DATASETS, RAW
from tasks.harness.errors import StageError
from tests.support.made import CIFAR10, made


@pytest.mark.parametrize("folder", ["data/raw", "data/prepared"])
@pytest.mark.parametrize("name", ["notes.txt", "cat/1.png", "digits/notes.txt", "digits/cat/1.png", ".hidden"])
def test_a_file_that_no_run_has_made_is_found_wherever_it_lies(workspace: Path, folder: str, name: str) -> None:
    file = Path(folder, name)
    file.parent.mkdir(parents=True)
    strangers.check(Path("elsewhere"))
    file.touch()
    with pytest.raises(
        StageError, match=rf"^{folder} holds '\S+', which no run has made, and a run would remove: move"
    ):
        strangers.check()
    assert file.exists()


@pytest.mark.parametrize(
    "name", ["raw/FashionMNIST/mine", "raw/digits/digits.csv/mine", "prepared/mine", "prepared/mine/"]
)
def test_so_is_a_link_to_a_folder_and_an_empty_folder(workspace: Path, name: str) -> None:
    place = Path("data", name)
    place.parent.mkdir(parents=True)
    if name.endswith("/"):
        place.mkdir()
    else:
        place.symlink_to(workspace)
    with pytest.raises(StageError, match="which no run has made"):
        strangers.check()


def test_five_are_named_the_rest_is_counted(workspace: Path) -> None:
    Path("data/raw").mkdir(parents=True)
    for number in range(7):
        Path(f"data/raw/{number}.png").touch()
    with pytest.raises(
        StageError, match=r"^data/raw holds '0.png', '1.png', '2.png', '3.png', '4.png' and 2 more, which"
    ):
        strangers.check()


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if row.mirrors])
def test_what_download_makes_is_known(workspace: Path, name: str) -> None:
    archives = []
    for file, content in made(name).items():
        archives.append(Path(file))
        archives[-1].write_bytes(content)
    fetch.unpack(archives, RAW / DATASETS[name].folder)
    assert len(list(RAW.rglob("*"))) > len(archives)
    strangers.check()


def test_what_download_makes_of_sprites_is_known(workspace: Path) -> None:
    for archive in CIFAR10.archives:
        Path(archive.name).touch()
    fetch.unpack([Path(archive.name) for archive in CIFAR10.archives], RAW / CIFAR10.folder)
    strangers.check()
    (RAW / CIFAR10.folder / "data_batch_1").touch()
    with pytest.raises(StageError, match="holds 'cifar-10-batches-bin/data_batch_1', which no run has made"):
        strangers.check()


def test_what_download_makes_of_digits_is_known(workspace: Path) -> None:
    Path("digits.csv.gz").write_bytes(gzip.compress(b"0"))
    fetch.unpack([Path("digits.csv.gz")], RAW / DATASETS["digits"].folder)
    strangers.check()


def test_what_the_stages_make_is_known(exported: Path) -> None:
    Path("data/raw/stock.json").touch()
    Path("data/raw/images.csv").touch()
    Path("data/prepared/train_files.csv").touch()
    strangers.check()
    assert len(list(Path("data/prepared").iterdir())) == 8


def test_what_the_system_and_a_killed_dvc_leave_is_nobodys(raw: Path) -> None:
    (raw / ".DS_Store").touch()
    (raw / ".Wm0b_3n-gQ2Yc1x9Tz4KpA.tmp").touch()
    strangers.check()


@pytest.mark.parametrize(("stage", "folder"), [(download.main, "raw"), (transform.main, "prepared")])
def test_a_stage_that_is_run_by_hand_replaces_no_stranger_either(
    prepared: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, stage: Callable[[], None], folder: str
) -> None:
    mirror = Path("mirror/fashion_mnist")
    mirror.mkdir(parents=True)
    for name, content in archives.items():
        (mirror / name).write_bytes(content)
    monkeypatch.setenv("DATA_MIRROR", "mirror")
    mine = Path("data", folder, "my notes.txt")
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(SystemExit, match=rf"^\w+: data/{folder} holds 'my notes.txt', which no run has made"):
        stage()
    assert mine.read_text() == "mine"
    mine.unlink()
    stage()
