"""A folder of images becomes a table: whole, in order, once, whatever happens meanwhile."""

import csv
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from arro3.core import Table
from arro3.io import read_parquet
from PIL import Image

from serving.folder import run as module
from serving.folder import table
from serving.folder.journal import Journal
from serving.folder.rows import Row, classify
from serving.folder.run import FolderError, run
from serving.model import Predictor
from serving.session import SessionError
from tests.support import served
from tests.support.params import ROOT

PHOTOS, OUT = Path("photos"), Path("labels.csv")
UNFINISHED = Path(".labels.csv.unfinished")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    served.save(served.model())


def put(*names: str, value: int = 255) -> None:
    for name in names:
        (PHOTOS / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), value).save(PHOTOS / name, "PNG")


def predict(out: Path = OUT, sha256: str = "abc", batch_size: int = 2) -> str:
    return run(Predictor(Path("model.onnx")), sha256, PHOTOS, out, threads=2, batch_size=batch_size)


def rows(out: Path = OUT) -> list[list[str]]:
    with out.open(newline="", encoding="utf-8") as file:
        return [[row["path"], row["label"], row["error"]] for row in csv.DictReader(file)]


def refusal(out: Path = OUT, sha256: str = "abc") -> str:
    with pytest.raises(FolderError) as refused:
        predict(out, sha256)
    return str(refused.value)


def test_every_image_has_a_row_in_the_order_of_the_paths_and_bad_ones_say_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [f"{number}.png" for number in range(9)]
    put(*names, "a/0.png")
    put("=1.png", value=0)
    (PHOTOS / "3.png").write_bytes(b"no image")
    (PHOTOS / "4.png").unlink()
    (PHOTOS / "4.png").symlink_to("nowhere")
    os.mkfifo(PHOTOS / "5a.png")
    said = predict()
    assert said.startswith("labels.csv: 12 images, 3 of them bad, as the column error says; ")
    assert rows() == [
        *(["0.png", "light", ""], ["1.png", "light", ""], ["2.png", "light", ""]),
        ["3.png", "", "not a PNG, JPEG, WebP or BMP image"],
        ["4.png", "", "no such file"],
        ["5.png", "light", ""],
        ["5a.png", "", "a FIFO, socket or device; a regular file is expected"],
        *(["6.png", "light", ""], ["7.png", "light", ""], ["8.png", "light", ""]),
        ["'=1.png", "dark", ""],
        ["a/0.png", "light", ""],
    ]
    assert capsys.readouterr().err == "predict: looking through photos\npredict: 12 images\n"
    assert sorted(path.name for path in Path().iterdir()) == ["labels.csv", "model.onnx", "photos"]


def test_parquet_says_the_same_and_which_model_said_it() -> None:
    put("1.png", "2.png")
    predict(Path("labels.PARQUET"))
    found = Table.from_arrow(read_parquet(Path("labels.PARQUET")))
    assert list(found["path"].to_pylist()) == ["1.png", "2.png"]
    assert list(found["label"].to_pylist()) == ["light", "light"]
    probabilities = Predictor(Path("model.onnx"))(np.full((1, 4, 4, 1), 255, np.uint8))[0]
    assert list(found["probability"].to_pylist()) == [probabilities.max()] * 2
    assert list(found["label_3"].to_pylist()) == [None] * 2
    assert b"model_sha256" in Path("labels.PARQUET").read_bytes()


def stop_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the next run after so many batches."""
    add = Journal.add
    left = iter(range(batches))

    def guarded(self: Journal, added: list[Row]) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        add(self, added)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", guarded)
        with pytest.raises(KeyboardInterrupt):
            predict()
    assert not OUT.exists()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of paths that will be classified from now on."""
    seen: list[str] = []

    def counting(predictor: Predictor, folder: Path, paths: list[str]) -> list[Row]:
        seen.extend(paths)
        return classify(predictor, folder, paths)

    monkeypatch.setattr(module, "classify", counting)
    return seen


def test_a_run_that_was_stopped_goes_on_to_the_same_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(*(f"{number}.png" for number in range(9)))
    predict(Path("never stopped.csv"))
    stop_after(2, monkeypatch)
    capsys.readouterr()
    seen = counted(monkeypatch)
    predict()
    assert seen == [f"{number}.png" for number in range(4, 9)]
    assert OUT.read_bytes() == Path("never stopped.csv").read_bytes()
    assert capsys.readouterr().err == "predict: looking through photos\npredict: 9 images, 4 of them done before\n"
    assert not UNFINISHED.exists()


def test_what_changed_came_or_went_meanwhile_is_as_a_new_run_would_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    put(*(f"{number}.png" for number in range(9)))
    stop_after(2, monkeypatch)
    put("1.png", value=0)
    (PHOTOS / "2.png").unlink()
    put("00.png")
    seen = counted(monkeypatch)
    predict()
    assert seen == ["00.png", "1.png", *(f"{number}.png" for number in range(4, 9))]
    predict(Path("new.csv"))
    assert OUT.read_bytes() == Path("new.csv").read_bytes()
    assert ["1.png", "dark", ""] in rows()


def test_another_model_or_folder_does_not_go_on_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    put(*(f"{number}.png" for number in range(9)))
    stop_after(2, monkeypatch)
    assert refusal(sha256="abd") == (
        "labels.csv was begun with model abc, not abd; go on with that, or remove .labels.csv.unfinished to begin anew"
    )
    shutil.copytree(PHOTOS, "others")
    with pytest.raises(FolderError, match=r"labels.csv was begun with folder .*photos, not .*others"):
        run(Predictor(Path("model.onnx")), "abc", Path("others"), OUT)
    predict()
    assert len(rows()) == 9


def test_a_folder_that_vanishes_ends_the_run_and_what_was_done_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    put(*(f"{number}.png" for number in range(9)))
    first = threading.Event()

    def vanishing(predictor: Predictor, folder: Path, paths: list[str]) -> list[Row]:
        if "4.png" in paths:
            assert first.wait(60)
            PHOTOS.rename("elsewhere")
        found = classify(predictor, folder, paths)
        if "0.png" in paths:
            first.set()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(module, "classify", vanishing)
        assert refusal() == "photos: No such file or directory"
    PHOTOS.mkdir()
    assert refusal().startswith("photos: no image in this folder or below; images are .png, ")
    PHOTOS.rmdir()
    Path("elsewhere").rename(PHOTOS)
    seen = counted(monkeypatch)
    predict()
    assert "0.png" not in seen
    assert [row[2] for row in rows()] == [""] * 9


def test_another_folder_in_its_place_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    put(*(f"{number}.png" for number in range(9)))

    other = threading.Event()

    def unmounting(predictor: Predictor, folder: Path, paths: list[str]) -> list[Row]:
        if "0.png" in paths:
            PHOTOS.rename("elsewhere")
            PHOTOS.mkdir()
            other.set()
        assert other.wait(60)  # between the two there is no folder at all, which is said otherwise
        return classify(predictor, folder, paths)

    monkeypatch.setattr(module, "classify", unmounting)
    assert refusal() == "photos is another folder than before; put it back, and the same command goes on"


def test_a_model_that_fails_ends_the_run_and_what_was_done_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    put(*(f"{number}.png" for number in range(9)))

    def failing(predictor: Predictor, folder: Path, paths: list[str]) -> list[Row]:
        if "6.png" in paths:
            raise SessionError("model.onnx failed")
        return classify(predictor, folder, paths)

    with monkeypatch.context() as patch:
        patch.setattr(module, "classify", failing)
        with pytest.raises(SessionError):
            predict()
    seen = counted(monkeypatch)
    predict()
    assert seen[0] == "6.png"


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("labels.txt", "labels.txt: a name that ends in .parquet or .csv is expected"),
        ("photos", "photos: a name that ends in .parquet or .csv is expected"),
        ("nowhere/labels.csv", "nowhere/labels.csv: there is no folder nowhere to write it to"),
        ("there.csv", "there.csv exists already; remove it, or name another OUT"),
        ("link.csv", "link.csv exists already; remove it, or name another OUT"),
        (f"{'a' * 250}.csv", f".{'a' * 250}.csv.unfinished: unable to open database file"),
    ],
)
def test_a_table_that_cannot_be_written_is_refused_at_once(out: str, reason: str) -> None:
    put("1.png")
    Path("there.csv").write_text("precious")
    Path("link.csv").symlink_to("nowhere.csv")
    assert refusal(Path(out)).startswith(reason)
    assert Path("there.csv").read_text() == "precious"


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    put("1.png")
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the tests may be root, who can write everywhere
    assert refusal(Path("photos/labels.csv")) == "photos/labels.csv: photos is a folder that cannot be written to"


def test_a_table_that_somebody_writes_meanwhile_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    put("1.png")
    write = table.write

    def beside(path: Path, *words: object) -> None:
        write(path, *words)  # type: ignore[arg-type]
        OUT.write_text("precious")

    monkeypatch.setattr(table, "write", beside)
    assert refusal() == "labels.csv exists already; remove it, or name another OUT"
    assert OUT.read_text() == "precious"


def test_a_second_process_at_the_same_table_is_refused() -> None:
    put("1.png")
    with Journal(UNFINISHED, {}):
        assert refusal() == "another process is at labels.csv; wait for it, or name another OUT"


def test_a_folder_that_is_none_or_has_no_image_is_refused_and_leaves_nothing() -> None:
    assert refusal() == "photos: No such file or directory"
    PHOTOS.mkdir()
    (PHOTOS / "text.txt").touch()
    assert refusal().startswith("photos: no image in this folder or below")
    PHOTOS.joinpath("text.txt").rename("elsewhere.txt")
    PHOTOS.rmdir()
    PHOTOS.touch()
    assert refusal() == "photos: Not a directory"
    assert not list(Path().glob(".labels*"))


def test_a_journal_that_is_damaged_or_a_disk_that_is_full_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    put("1.png")
    UNFINISHED.write_text("no database" * 100)
    assert refusal() == ".labels.csv.unfinished: file is not a database; remove it to begin anew"
    UNFINISHED.unlink()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", full)
        assert refusal() == (
            ".labels.csv.unfinished: database or disk is full; what is done is kept, the same command goes on"
        )
    with monkeypatch.context() as patch:
        patch.setattr(table, "write", lambda *_: Path("/dev/full").write_text("x" * 10_000))
        assert refusal().endswith(": No space left on device")
    assert not OUT.exists()
    predict()
    assert len(rows()) == 1


def test_a_table_may_lie_in_the_folder() -> None:
    put("1.png", "2.png")
    predict(PHOTOS / "labels.csv")
    predict(PHOTOS / "again.csv")
    assert [row[0] for row in rows(PHOTOS / "again.csv")] == ["1.png", "2.png"]


def test_batches_of_large_images_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    put(*(f"{number}.png" for number in range(5)))
    monkeypatch.setattr(module, "BATCH_BYTES", 4 * 4 * 2)
    sizes = []
    call = Predictor.__call__

    def sized(self: Predictor, images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return call(self, images)

    monkeypatch.setattr(Predictor, "__call__", sized)
    predict(batch_size=0)
    assert sorted(sizes) == [1, 2, 2]


# A run that commits each batch, and takes its time for it.
SLOW = """
import sys, time
from serving import predict
from serving.folder import journal, run
journal.COMMIT_EVERY_S, classify = 0, run.classify
run.classify = lambda *words: (time.sleep(0.05), classify(*words))[1]
sys.exit(predict.main())
"""
WORDS = ("--model=model.onnx", "--folder=photos", "--out=labels.csv", "--threads=1", "--batch-size=2")


def wait_for_rows(process: "subprocess.Popen[str]") -> None:
    """Wait until a run has committed some."""
    while process.poll() is None:
        # The last ones that are in the file may not be committed yet; those of the batches before them are.
        if UNFINISHED.exists() and UNFINISHED.read_bytes().count(b"light") > 20:
            return
        time.sleep(0.01)
    pytest.fail("it ended before it was stopped")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_ended_goes_on_to_the_same_rows(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    put(*(f"{number:03}.png" for number in range(100)))
    slow = (sys.executable, "-c", SLOW, *WORDS)
    with subprocess.Popen(slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_rows(process)
        process.send_signal(number)
        _, said = process.communicate()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + number
        assert said.endswith(f"predict: stopped by {number.name}; the same command goes on\n")
    assert not OUT.exists()
    words = (sys.executable, "-m", "serving.predict", *WORDS)
    answer = subprocess.run(words, check=True, capture_output=True, text=True)
    assert re.search(r"predict: 100 images, \d+ of them done before", answer.stderr)
    predict(Path("never stopped.csv"))
    assert OUT.read_bytes() == Path("never stopped.csv").read_bytes()


# A run that may open no more files once it comes to the image that is named.
EXHAUSTED = """
import sys
from serving import predict
from serving.folder import run
from tests.support.exhausted import no_more_files
classify, last = run.classify, sys.argv.pop()
def exhausted(predictor, folder, paths):
    if last not in paths:
        return classify(predictor, folder, paths)
    with no_more_files():
        return classify(predictor, folder, paths)
run.classify = exhausted
sys.exit(predict.main())
"""


def test_that_no_more_files_can_be_opened_ends_the_run_and_what_was_done_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    put(*(f"{number}.png" for number in range(9)))
    words = (sys.executable, "-c", EXHAUSTED, *WORDS, "6.png")
    answer = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr.splitlines()[-1]) == (1, "predict: photos/6.png: Too many open files")
    assert not OUT.exists()
    answer = subprocess.run((*words[:-1], "none"), check=True, capture_output=True, text=True)
    assert "predict: 9 images, 6 of them done before\n" in answer.stderr
    assert [row[2] for row in rows()] == [""] * 9
