"""Data checks: leaks, copies, conflicts, blank and unreadable images are found and named, leaks refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import download, transform
from tasks.data import checks
from tasks.data.checks import Checks
from tasks.data.moments import deviations, pixel_sums
from tasks.harness.records import read_json
from tasks.prepared import SPLITS, Images, SplitName
from tests.support.made import idx, made_images
from tests.support.params import write_params

INBOX = Path("data/inbox")
DATA = Path(checks.REPORT)


def noise(seed: int, shape: tuple[int, ...] = (8, 12, 3)) -> Images:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def put(path: str, pixels: Images) -> None:
    (INBOX / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(INBOX / path)


@pytest.fixture
def inbox(workspace: Path) -> None:
    """Two images of each class in each split."""
    for number in range(12):
        split, name = ("train", "val", "test")[number % 3], ("cat", "dog")[number // 6]
        put(f"{split}/{name}/{number}.png", noise(number))


def checked(**settings: object) -> dict[str, Any]:
    """Run both stages on the images in the inbox and return what data.json says."""
    write_params(download={"dataset": "folder"}, transform={"image_size": [8, 12]} | settings)
    download.main()
    transform.main()
    return read_json(DATA)


def refused(**settings: object) -> tuple[str, dict[str, Any]]:
    with pytest.raises(SystemExit) as stopped:
        checked(**settings)
    assert not Path("data/prepared").exists()
    return str(stopped.value.code), read_json(DATA)


def test_nothing_to_find(inbox: None) -> None:
    found = checked()
    assert (found["passed"], found["verdict"]["reasons"], found["images"]) == (True, [], 12)
    assert found["classes"] == [{"name": name, "train": 2, "validation": 2, "test": 2} for name in ("cat", "dog")]
    assert found["formats"] == [{"width": 12, "height": 8, "mode": "RGB", "images": 12}]
    assert (found["nearly_constant"], found["groups"], found["unreadable"]) == (0, [], [])


def test_data_json_holds_the_verdict_beside_what_was_found(inbox: None) -> None:
    put("train/cat/again.png", noise(2))
    message, found = refused()
    verdict = found["verdict"]
    assert (verdict["gate"], verdict["outcome"]) == ("data", "failed")
    assert verdict["reasons"] == [message.removeprefix("transform: ")]
    assert verdict["figures"]["test images among the training images"] == found["leaked"] == 1
    assert verdict["figures"]["images"] == found["images"] == 13
    assert "reasons" not in found
    verdict = checked(on_leak="allow")["verdict"]
    assert (verdict["gate"], verdict["outcome"], verdict["reasons"]) == ("data", "passed", [])


def test_a_leak_from_train_into_test_is_an_error_unless_it_is_allowed(inbox: None) -> None:
    put("train/cat/again.bmp", noise(2))  # other bytes, the same pixels
    message, found = refused()
    assert message == (
        "transform: 1 of 4 test images are among the training images, too:\n"
        "  train: train/cat/again.bmp; test: test/cat/2.png\n"
        "Remove them from one of the two, or accept them with transform.on_leak: allow"
    )
    assert not found["passed"]
    assert found["leaks"] == {"train_validation": 0, "train_test": 1, "validation_test": 0}
    found = checked(on_leak="allow")
    assert found["passed"]
    assert found["leaks"]["train_test"] == 1
    assert found["groups"] == [
        {
            "count": 2,
            "images": ["train/cat/again.bmp", "test/cat/2.png"],
            "classes": ["cat", "cat"],
            "splits": ["train", "test"],
        }
    ]


def test_a_leak_in_an_archive_is_named_by_its_places(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test, _ = made_images(8, seed=2)
    monkeypatch.setattr(checks, "MAX_NAMED", 3)
    train = made_images(8, seed=1)[0]
    train[:] = test[5]  # wherever the validation split is taken from
    (raw / "train-images-idx3-ubyte").write_bytes(idx(train))
    with pytest.raises(SystemExit, match=r"too:\n  train: train\[0\]; validation: validation\[0\]; test: test\[5\]\n"):
        transform.main()
    (group,) = read_json(DATA)["groups"]
    assert group["count"] == 9
    assert group["images"] == ["train[0]", "validation[0]", "test[5]"]


def test_copies_in_other_places_are_reported(inbox: None) -> None:
    put("train/cat/again.png", noise(0))
    put("train/cat/and-again.png", noise(0))
    put("val/dog/3.png", noise(3))  # of train/cat: the label of one is wrong
    put("test/cat/4.png", noise(4))  # of val/cat
    found = checked(on_leak="allow")
    assert found["copies"] == {"train": 2, "validation": 0, "test": 0}
    assert found["leaks"] == {"train_validation": 1, "train_test": 0, "validation_test": 1}
    assert found["conflicts"] == 1
    assert found["groups"][0]["images"] == ["val/cat/4.png", "test/cat/4.png"]
    assert found["groups"][1]["images"] == ["train/cat/3.png", "val/dog/3.png"]
    assert found["groups"][1]["classes"] == ["cat", "dog"]


def test_a_leak_from_the_images_held_out_for_validation_is_one_too(inbox: None) -> None:
    put("val/cat/again.png", noise(2))
    message, found = refused()
    assert "1 of 4 test images are among the training images, too:\n  validation: val/cat/again.png; test: " in message
    assert found["leaks"] == {"train_validation": 0, "train_test": 0, "validation_test": 1}
    put("train/cat/again.png", noise(2))
    _, found = refused()
    assert found["leaks"] == {"train_validation": 1, "train_test": 1, "validation_test": 1}
    assert found["leaked"] == 1


def test_blank_images_are_named_and_are_no_copies(inbox: None) -> None:
    put("train/cat/white.png", np.full((8, 12, 3), 255, np.uint8))
    put("test/cat/white.png", np.full((8, 12, 3), 255, np.uint8))
    put("train/dog/red.png", np.full((8, 12, 3), (200, 10, 30), np.uint8))
    put("train/dog/dark.png", noise(0) // 100)
    found = checked()
    assert found["nearly_constant"] == 4
    assert set(found["nearly_constant_images"]) == {
        "train/cat/white.png",
        "test/cat/white.png",
        "train/dog/red.png",
        "train/dog/dark.png",
    }
    assert found["groups"] == []
    assert found["leaks"]["train_test"] == 0


def test_every_unreadable_file_is_in_the_report(inbox: None) -> None:
    (INBOX / "train/cat/text.png").write_text("no image")
    (INBOX / "test/dog/cut.png").write_bytes((INBOX / "train/cat/0.png").read_bytes()[:60])
    _, found = refused()
    assert {bad["image"] for bad in found["unreadable"]} == {"train/cat/text.png", "test/dog/cut.png"}
    assert len(found["verdict"]["reasons"]) == 1
    found = checked(on_bad_image="skip", max_bad_fraction=0.2)
    assert found["passed"]
    assert {bad["image"] for bad in found["unreadable"]} == {"train/cat/text.png", "test/dog/cut.png"}
    assert found["images"] == 12


def test_why_they_are_unreadable_is_said_without_a_path_of_the_machine(inbox: None, tmp_path: Path) -> None:
    (INBOX / "train/cat/text.png").write_text("no image")
    write_params(download={"dataset": "folder", "path": str(INBOX.absolute())})
    download.main()
    with pytest.raises(SystemExit):
        transform.main()
    assert read_json(DATA)["unreadable"] == [
        {"image": "train/cat/text.png", "reason": "not a PNG, JPEG, WebP or BMP image"}
    ]
    assert str(tmp_path) not in DATA.read_text()


def test_a_class_that_a_split_lacks_is_named(inbox: None) -> None:
    (INBOX / "test/dog/8.png").rename(INBOX / "test/cat/8.png")
    (INBOX / "test/dog/11.png").rename(INBOX / "test/cat/11.png")
    assert checked()["incomplete"] == ["dog"]


def test_a_class_without_training_images_is_refused(inbox: None) -> None:
    rows = [
        "image,label,split",
        *(f"{split}/cat/{n}.png,cat,{split}" for n, split in ((0, "train"), (1, "val"), (2, "test"))),
    ]
    (INBOX / "labels.csv").write_text("\n".join([*rows, "train/dog/6.png,dog,train", "test/dog/8.png,Dog,test"]))
    csv = {"file": "labels.csv", "header": True, "image": "image", "label": "label", "split": "split"}
    write_params(download={"dataset": "csv", "csv": csv})
    download.main()
    with pytest.raises(SystemExit, match=r"no image of Dog \(1 images\) is in the train split"):
        transform.main()


def test_one_class_is_no_classification(inbox: None) -> None:
    for split in ("train", "val", "test"):
        shutil.rmtree(INBOX / split / "dog")
    message, found = refused()
    assert "there is one class only, cat" in message
    assert not found["passed"]


def test_whatever_else_is_wrong_with_the_data_is_in_the_report_too(inbox: None) -> None:
    shutil.rmtree(INBOX / "test")
    message, found = refused(test_fraction=0.01)
    assert "the test split would be empty" in message
    assert found["verdict"]["reasons"] == [message.removeprefix("transform: ")]
    assert found["classes"] == []


def test_sizes_and_modes_are_those_of_the_files(inbox: None) -> None:
    put("train/cat/grey.png", noise(100, (20, 16)))
    put("train/cat/alpha.png", noise(101, (9, 9, 4)))
    put("train/cat/deep.png", np.random.default_rng(102).integers(0, 65536, (8, 12), np.uint16))
    found = {(f["width"], f["height"], f["mode"]): f["images"] for f in checked()["formats"]}
    assert found == {(12, 8, "RGB"): 12, (16, 20, "L"): 1, (9, 9, "RGBA"): 1, (12, 8, "I;16"): 1}


def test_groups_are_those_of_a_search_by_hand() -> None:
    generator = np.random.default_rng(0)
    pool = generator.integers(0, 256, (40, 2, 2, 1), np.uint8)
    seen = Checks()
    by_pixels: dict[bytes, list[tuple[SplitName, int]]] = {}
    for split, size in zip(SPLITS, (50, 20, 30), strict=True):
        images = pool[generator.integers(0, 40, size)]
        for part in np.split(images, [7, 11]):
            seen.add(split, part, deviations(4, *pixel_sums(part)))
        for index, image in enumerate(images):
            by_pixels.setdefault(image.tobytes(), []).append((split, index))
    expected = [places for places in by_pixels.values() if len(places) > 1]
    assert {frozenset(group) for group in seen.groups()} == {frozenset(group) for group in expected}
    for group in seen.groups():
        assert group == sorted(group, key=lambda place: (SPLITS.index(place[0]), place[1]))


def test_a_long_list_is_cut_and_counted(inbox: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_LISTED", 3)
    monkeypatch.setattr(checks, "MAX_NAMED", 2)
    for number in range(5):
        put(f"train/dog/white{number}.png", np.full((8, 12, 3), 255, np.uint8))
        put(f"train/cat/leak{number}.png", noise(50 + number))
        put(f"test/cat/leak{number}.png", noise(50 + number))
    message, found = refused()
    assert "5 of 9 test images are among the training images, too:\n" in message
    assert message.count("; test: ") == 2
    assert "  and more, see reports/data.json" in message
    assert (found["nearly_constant"], len(found["nearly_constant_images"])) == (5, 3)
    assert (found["leaks"]["train_test"], len(found["groups"])) == (5, 3)
