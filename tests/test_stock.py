"""Your own images: what download lists of folders and CSV files, and what it refuses."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tasks import download, stock
from tasks.stock import Stock
from tests.conftest import write_params

INBOX = Path("data/inbox")


@pytest.fixture(autouse=True)
def inbox(workspace: Path) -> None:
    INBOX.mkdir(parents=True)


def put(*paths: str) -> None:
    for path in paths:
        (INBOX / path).parent.mkdir(parents=True, exist_ok=True)
        (INBOX / path).write_text(path)


def taken(dataset: str = "folder", **csv: object) -> Stock:
    settings = {"file": "labels.csv", "header": True, "image": "image", "label": "label", "split": None}
    write_params(download={"dataset": dataset, "csv": settings | csv})
    download.main()
    return Stock.read()


def listed(found: Stock) -> list[tuple[str, str, str | None]]:
    return [(item.path, item.label, item.split) for item in found.items]


def refusal(dataset: str = "folder", **csv: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        taken(dataset, **csv)
    assert not Path("data/raw").exists()
    return str(stopped.value.code)


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


def test_an_empty_or_missing_folder_is_refused() -> None:
    assert "data/inbox holds no images: put files of .png, .jpg, .jpeg, .webp, .bmp there" in refusal()
    INBOX.rmdir()
    assert "download.path = 'data/inbox' is no folder" in refusal()


def write_csv(text: str, encoding: str = "utf-8") -> None:
    (INBOX / "labels.csv").write_bytes(text.encode(encoding))


def test_the_tutorials_annotations_file() -> None:
    put("tshirt1.jpg", "tshirt2.jpg", "ankleboot999.jpg")
    write_csv("tshirt1.jpg, 0\ntshirt2.jpg, 0\n\nankleboot999.jpg, 9\n")
    found = taken("csv", header=False, image=0, label=1)
    assert found.class_names == [str(number) for number in range(10)]
    assert listed(found) == [("ankleboot999.jpg", "9", None), ("tshirt1.jpg", "0", None), ("tshirt2.jpg", "0", None)]


def test_columns_by_name_quotes_and_a_split() -> None:
    put("a, b.png", "c.png", "d.png")
    write_csv('\ufefflabel,use,"the image"\r\n"cat, big",train,"a, b.png"\r\ndog,val,c.png\r\ndog,test,d.png\r\n')
    found = taken("csv", image="the image", split="use")
    assert found.class_names == ["cat, big", "dog"]
    assert listed(found) == [
        ("a, b.png", "cat, big", "train"),
        ("c.png", "dog", "validation"),
        ("d.png", "dog", "test"),
    ]


@pytest.mark.parametrize("labels", [("1", "0"), ("dog", "cat"), ("1", "cat"), ("dog", "0")])
def test_class_names_from_a_file(labels: tuple[str, str]) -> None:
    put("a.png", "b.png")
    (INBOX / stock.CLASSES).write_text("cat\ndog\ncow\n")
    write_csv(f"image,label\na.png,{labels[0]}\nb.png,{labels[1]}\n")
    found = taken("csv")
    assert found.class_names == ["cat", "dog", "cow"]
    assert listed(found) == [("a.png", "dog", None), ("b.png", "cat", None)]


def test_every_wrong_row_is_named() -> None:
    put("a.png", "b.png")
    (INBOX / stock.CLASSES).write_text("cat\n")
    write_csv(
        "image,label,split\na.png,cat,train\na.png,cat,train\nmissing.png,cat,train\n../a.png,cat,train\n"
        "b.png,,train\nb.png,dog,train\nb.png,1,train\nb.png,cat,dev\nb.png\n"
    )
    message = refusal("csv", split="split")
    assert message.startswith("download: data/inbox/labels.csv is refused, 11 mistakes:\n")
    for reason in (
        "line 3: image a.png is there twice",
        "line 4: image missing.png: no such file",
        "line 5: image '../a.png' is no path below data/inbox",
        "line 6: image b.png has no label",
        "line 7: label 'dog' is no class of classes.txt, nor a number below 1",
        "line 8: label '1' is no class of classes.txt, nor a number below 1",
        "line 9: split 'dev' should be train, val, validation, test or empty",
        "line 10: 1 of at least 3 values",
    ):
        assert f"\n  {reason}" in message


@pytest.mark.parametrize(
    ("text", "csv", "reason"),
    [
        ("image,label\n", {}, "holds no images"),
        (
            "file,label\na.png,1\n",
            {},
            "has no column 'image' (download.csv.image); the columns, between commas, are file, label",
        ),
        ("a.png,1\n", {"header": False}, "has no column 'image' (download.csv.image); there is no header"),
        ('image,label\n"a.png,1\n', {}, "unexpected end of data"),
        ("", {}, "has no column 'image'"),
        ("image,label\na.png,10423387\n", {}, "label 10423387 of 1 images: numbers count the classes from 0"),
        ("image,label\na.png,1\nb.png,-1\n", {}, "-1 among labels that are numbers"),
        ("image,label\na.png,1\nb.png,1.0\n", {}, "1.0 among labels that are numbers"),
    ],
)
def test_a_csv_file_that_cannot_be_used(text: str, csv: dict[str, object], reason: str) -> None:
    put("a.png", "b.png")
    write_csv(text)
    assert reason in refusal("csv", **csv)


def test_letters_and_digits_may_be_classes() -> None:
    put("a.png", "b.png")
    write_csv("image,label\na.png,7\nb.png,A\n")
    assert taken("csv").class_names == ["7", "A"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"cat\ndog\ncat\n", "classes.txt names cat more than once"), (b"caf\xe9\n", "classes.txt is not UTF-8")],
)
def test_a_list_of_classes_that_cannot_be_used(content: bytes, reason: str) -> None:
    put("a.png")
    write_csv("image,label\na.png,cat\n")
    (INBOX / stock.CLASSES).write_bytes(content)
    assert reason in refusal("csv")


def test_a_list_of_classes_may_begin_with_a_byte_order_mark() -> None:
    put("a.png")
    write_csv("image,label\na.png,cat\n")
    (INBOX / stock.CLASSES).write_bytes(b"\xef\xbb\xbfcat\n")
    assert taken("csv").class_names == ["cat"]


def test_folders_beside_train_that_are_no_splits_are_refused() -> None:
    put("train/1.png", "car/2.png", "plane/3.png", "notes/x.txt")
    assert "data/inbox: beside train/ there are images in car, plane, but a split is one of train, val" in refusal()


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb.png", b"a\rb.png"])
def test_names_that_cannot_be_written_down_are_refused(name: bytes) -> None:
    put("cat/1\u202fPM.png")
    taken()
    shutil.rmtree("data/raw")
    Path(os.fsdecode(os.fsencode(INBOX / "cat") + b"/" + name)).write_text("x")
    assert "data/inbox: names of files that cannot be written down; rename them:\n  'cat/" in refusal()


def test_a_csv_file_that_is_missing_or_in_another_encoding() -> None:
    assert "data/inbox/labels.csv is missing: download.csv.file names the annotations" in refusal("csv")
    write_csv("image,label\n\u00e9.png,1\n", "latin-1")
    assert "data/inbox/labels.csv is not UTF-8" in refusal("csv")
