"""Images in folders by class, with or without folders for the splits."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.support.inbox import INBOX, listed, put, refusal, taken


@pytest.fixture(autouse=True)
def inbox(workspace: Path) -> None:
    INBOX.mkdir(parents=True)


def test_a_folder_for_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    put("dog/1.png", "cat/2.JPG", "cat/old/3.jpeg", "cat/.hidden.png", "cat/notes.txt", "loose.png")
    found = taken()
    assert found.class_names == ["cat", "dog"]
    assert listed(found) == [("cat/2.JPG", "cat", None), ("cat/old/3.jpeg", "cat", None), ("dog/1.png", "dog", None)]
    assert list(found.items)[2].sha256 == hashlib.sha256(b"dog/1.png").hexdigest()
    assert sorted(path.name for path in Path("data/raw").iterdir()) == ["images.csv", "stock.json"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[-5:-1] == [
        "Left out: .txt (1): cat/notes.txt",
        "Left out: hidden (1): cat/.hidden.png",
        "Left out: in no folder of a class (1): loose.png",
        "Images are .png, .jpg, .jpeg, .webp, .bmp files in a folder for their class",
    ]


def test_a_class_whose_files_are_no_images_is_refused() -> None:
    put("cat/1.png", "dog/2.heic", "dog/3.heic")
    assert "data/inbox: no images of dog: images are .png, .jpg, .jpeg, .webp, .bmp files" in refusal()


def test_folders_for_the_splits() -> None:
    put("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "test/dog/4.png")
    assert listed(taken()) == [
        ("test/dog/4.png", "dog", "test"),
        ("train/cat/1.png", "cat", "train"),
        ("train/dog/2.png", "dog", "train"),
        ("val/cat/3.png", "cat", "validation"),
    ]


def test_a_class_without_training_images_is_refused() -> None:
    put("train/cat/1.png", "test/cow/2.png")
    assert "data/inbox: no training images of cow; the classes of train/ are ['cat']" in refusal()


def test_folders_beside_train_that_are_no_splits_are_refused() -> None:
    put("train/1.png", "car/2.png", "plane/3.png", "notes/x.txt")
    assert "data/inbox: beside train/ there are images in car, plane, but a split is one of train, val" in refusal()


def left_out(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("Left out: ") for line in lines if line.startswith("Left out: ")]


def test_links_to_folders_are_followed(capsys: pytest.CaptureFixture[str]) -> None:
    put("cat/1.png")
    for name in ("dog", "cats"):
        Path(f"elsewhere/{name}").mkdir(parents=True)
        Path(f"elsewhere/{name}/2.png").write_text(name)
    (INBOX / "dog").symlink_to(Path("elsewhere/dog").absolute())
    (INBOX / "cat/more").symlink_to(Path("elsewhere/cats").absolute())
    assert [path for path, _, _ in listed(taken())] == ["cat/1.png", "cat/more/2.png", "dog/2.png"]
    assert left_out(capsys) == []


def test_links_in_a_circle_end(capsys: pytest.CaptureFixture[str]) -> None:
    put("cat/1.png", "cat/old/2.png", "dog/3.png")
    (INBOX / "cat/old/up").symlink_to("..")
    (INBOX / "cat/all").symlink_to("../../inbox")
    (INBOX / "dog/self").symlink_to("self")
    assert [path for path, _, _ in listed(taken())] == ["cat/1.png", "cat/old/2.png", "dog/3.png"]
    assert left_out(capsys) == [
        "folders that links lead to once more (2): cat/all, cat/old/up",
        "links that cannot be followed (Too many levels of symbolic links) (1): dog/self",
    ]


def test_folders_without_end_are_refused() -> None:
    put("cat/1.png", f"dog/{'d/' * 100}1.png")
    with pytest.raises(SystemExit, match=r"download: 'data/inbox/dog/d/.*: folders are nested more than 100 deep here"):
        taken()


@pytest.mark.parametrize("target", ["data/raw", "models", ".cache/logs"])
def test_a_link_to_what_the_pipeline_writes_is_refused(target: str) -> None:
    put("cat/1.png")
    Path(target).mkdir(parents=True)
    (INBOX / "dog").symlink_to(Path(target).absolute())
    with pytest.raises(SystemExit, match=r"data/inbox/dog: this link should be apart from "):
        taken()


def test_whatever_is_left_out_is_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    put("cat/1.png", ".git/2.png", ".ipynb_checkpoints/3.png", *(f"cat/{n}.txt" for n in range(7)))
    (INBOX / "bird").mkdir()
    (INBOX / "cat/gone.png").symlink_to("nowhere.png")
    os.mkfifo(INBOX / "cat/fifo.png")
    (INBOX / "cat/\x1b[31mred.txt").touch()
    found = taken()
    assert found.class_names == ["cat"]
    assert [path for path, _, _ in listed(found)] == ["cat/1.png"]
    assert left_out(capsys) == [
        r".txt (8): '\x1b[31mred.txt', cat/0.txt, cat/1.txt, cat/2.txt, cat/3.txt and 3 more".replace("'", "'cat/", 1),
        "folders without a file (1): bird",
        "hidden (2): .git, .ipynb_checkpoints",
        "links that cannot be followed (No such file or directory) (1): cat/gone.png",
        "neither file nor folder (1): cat/fifo.png",
    ]


def test_a_class_is_one_however_its_letters_are_composed() -> None:
    put("caf\u00e9/1.png", "cafe\u0301/2.png")
    found = taken()
    assert found.class_names == ["caf\u00e9"]
    assert [path for path, _, _ in listed(found)] == ["cafe\u0301/2.png", "caf\u00e9/1.png"]
