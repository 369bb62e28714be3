"""Images with a CSV file: every mistake is named."""

import os
import shutil
from pathlib import Path

import pytest

from tasks.data import annotations
from tests.support.inbox import INBOX, listed, put, refusal, taken, write_csv


@pytest.fixture(autouse=True)
def inbox(workspace: Path) -> None:
    INBOX.mkdir(parents=True)


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
    (INBOX / annotations.CLASSES).write_text("cat\ndog\ncow\n")
    write_csv(f"image,label\na.png,{labels[0]}\nb.png,{labels[1]}\n")
    found = taken("csv")
    assert found.class_names == ["cat", "dog", "cow"]
    assert listed(found) == [("a.png", "dog", None), ("b.png", "cat", None)]


def test_one_file_is_one_image_however_its_path_is_written() -> None:
    put("a/0.png")
    write_csv("image,label\na/0.png,cat\n./a/0.png,dog\na//0.png,dog\n")
    message = refusal("csv")
    assert "2 mistakes:\n  line 3: image a/0.png is there twice\n  line 4: image a/0.png is there twice" in message


def test_a_column_that_is_there_twice_is_refused() -> None:
    put("a.png")
    write_csv("image,label,label\na.png,cat,dog\n")
    assert "labels.csv has 2 columns 'label' (download.csv.label): name one by number" in refusal("csv")
    assert taken("csv", label=2).class_names == ["dog"]


def test_a_class_is_one_however_its_letters_are_composed() -> None:
    put("a.png", "b.png")
    write_csv("image,label\na.png,caf\u00e9\nb.png,cafe\u0301\n")
    assert taken("csv").class_names == ["caf\u00e9"]
    shutil.rmtree("data/raw")
    (INBOX / annotations.CLASSES).write_text("cafe\u0301\n")
    assert taken("csv").class_names == ["caf\u00e9"]


def test_what_is_no_regular_file_is_named() -> None:
    os.mkfifo(INBOX / "a.png")
    write_csv("image,label\na.png,cat\n")
    assert "line 2: image a.png: not a regular file" in refusal("csv")
    (INBOX / "labels.csv").unlink()
    os.mkfifo(INBOX / "labels.csv")
    assert "a FIFO, socket or device; a regular file is expected: data/inbox/labels.csv" in refusal("csv")


def test_every_wrong_row_is_named() -> None:
    put("a.png", "b.png")
    (INBOX / annotations.CLASSES).write_text("cat\n")
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
    (INBOX / annotations.CLASSES).write_bytes(content)
    assert reason in refusal("csv")


def test_a_list_of_classes_may_begin_with_a_byte_order_mark() -> None:
    put("a.png")
    write_csv("image,label\na.png,cat\n")
    (INBOX / annotations.CLASSES).write_bytes(b"\xef\xbb\xbfcat\n")
    assert taken("csv").class_names == ["cat"]


def test_a_csv_file_that_is_missing_or_in_another_encoding() -> None:
    assert "data/inbox/labels.csv is missing: download.csv.file names the annotations" in refusal("csv")
    write_csv("image,label\n\u00e9.png,1\n", "latin-1")
    assert "data/inbox/labels.csv is not UTF-8" in refusal("csv")
