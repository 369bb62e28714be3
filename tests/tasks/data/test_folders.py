"""Images in folders by class, with or without folders for the splits."""

import hashlib
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
    assert "Left out: 1 .txt, 1 in no folder of a class; images are .png, " in capsys.readouterr().out


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
