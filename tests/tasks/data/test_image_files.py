"""Your own images through transform: decoded as serving decodes them, split by what is in them, the bad ones named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.images import decode
from tasks import download, transform
from tasks.data import image_files
from tasks.prepared import Card, Split, SplitName
from tests.support.params import write_params

INBOX = Path("data/inbox")
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def inbox(workspace: Path) -> None:
    """Sixty images of three sizes and modes, in folders for two classes."""
    for number in range(60):
        put(number)


def put(number: int) -> None:
    path = INBOX / ("cat" if number % 2 else "dog") / f"{number:03}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = [(20, 30, 3), (40, 10, 4), (16, 16)][number % 3]
    Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, np.uint8)).save(path)


def prepared(**settings: object) -> None:
    """Run both stages, with changes to the parameters of transform."""
    write_params(
        download={"dataset": "folder"},
        transform={"image_size": [8, 12], "validation_fraction": 0.25, "test_fraction": 0.25} | settings,
    )
    download.main()
    transform.main()


def placed() -> dict[bytes, str]:
    """Return the split of each prepared image."""
    return {image.tobytes(): name for name in SPLITS for image in Split.read(name).images}


@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_sees_the_pixels_that_serving_sees(resize: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "CHUNK_BYTES", 8 * 12 * 5)  # several chunks
    prepared(resize=resize, channels=channels)
    expected = sorted(
        (decode(path, (8, 12, channels), resize).tobytes(), path.parent.name)  # type: ignore[arg-type]
        for path in INBOX.rglob("*.png")
    )
    names = Card.read().class_names
    found = [
        (image.tobytes(), names[label])
        for split in map(Split.read, SPLITS)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(found) == expected
    assert (Card.read().resize, Card.read().image_shape) == (resize, [8, 12, channels])


def test_images_that_are_added_move_none_of_the_others() -> None:
    prepared()
    before = placed()
    assert set(before.values()) == set(SPLITS)
    for number in range(60, 120):
        put(number)
    prepared()
    after = placed()
    assert len(after) == 120
    assert {image: after[image] for image in before} == before
    sizes = Card.read().sizes
    assert abs(sizes["test"] - 30) < 15
    assert abs(sizes["validation"] - 22) < 15
    write_params(download={"dataset": "folder"}, transform={"image_size": [8, 12], "seed": 1})
    transform.main()
    assert placed() != after


def test_copies_of_an_image_are_in_one_split() -> None:
    for number in range(60):
        original = next(INBOX.rglob(f"{number:03}.png"))
        (original.parent / f"copy-{number}.png").write_bytes(original.read_bytes())
    prepared()
    assert len({image.tobytes() for name in SPLITS for image in Split.read(name).images}) == 60
    assert sum(len({image.tobytes() for image in Split.read(name).images}) for name in SPLITS) == 60


def test_splits_that_the_folders_say() -> None:
    for name, number in (("train", 0), ("train", 1), ("val", 2), ("test", 3), ("test", 4)):
        source = next(INBOX.rglob(f"{number:03}.png"))
        target = INBOX / name / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    for rest in ("cat", "dog"):
        shutil.rmtree(INBOX / rest)
    prepared()
    assert Card.read().sizes == {"train": 2, "validation": 1, "test": 2}


def spoil() -> list[str]:
    cut, text = INBOX / "cat/001.png", INBOX / "dog/002.png"
    cut.write_bytes(cut.read_bytes()[:100])
    text.write_text("no image")
    return ["cat/001.png: broken image (", "dog/002.png: not a PNG, JPEG, WebP or BMP image"]


def test_every_bad_image_is_named() -> None:
    reasons = spoil()
    with pytest.raises(SystemExit) as stopped:
        prepared()
    message = str(stopped.value.code)
    assert message.startswith("transform: 2 of 60 images (3.3%) cannot be read:\n")
    assert all(reason in message for reason in reasons)
    assert "leave them out with transform.on_bad_image: skip" in message
    assert not Path("data/prepared").exists()


def test_bad_images_are_left_out_up_to_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = spoil()
    with pytest.raises(SystemExit, match=r"more than transform.max_bad_fraction = 0.03"):
        prepared(on_bad_image="skip", max_bad_fraction=0.03)
    prepared(on_bad_image="skip", max_bad_fraction=0.04)
    card = Card.read()
    assert sum(card.sizes.values()) == 58
    assert {name: len(Split.read(name).images) for name in SPLITS} == card.sizes
    assert {name: len(Split.read(name).labels) for name in SPLITS} == card.sizes
    assert list(card.skipped) == ["cat/001.png", "dog/002.png"]
    printed = capsys.readouterr().out
    assert all(reason in printed for reason in reasons)


def test_an_image_that_changed_since_stock_was_taken() -> None:
    prepared()
    put(0)
    Image.new("L", (9, 9)).save(INBOX / "dog/000.png")
    with pytest.raises(SystemExit, match=r"data/inbox/dog/000.png has changed since download took stock of it"):
        transform.main()
    (INBOX / "dog/000.png").unlink()
    with pytest.raises(SystemExit, match=r"data/inbox/dog/000.png: No such file or directory, though download has"):
        transform.main()


def test_some_images_with_a_split_and_some_without() -> None:
    rows = ["image,label,split", "dog/000.png,dog,train", "cat/001.png,cat,"]
    (INBOX / "labels.csv").write_text("\n".join(rows))
    csv = {"file": "labels.csv", "header": True, "image": "image", "label": "label", "split": "split"}
    for text, reason in (
        ("\n".join(rows), "some images have a split and some have none"),
        (f"{rows[0]}\ndog/000.png,dog,test", "no image is in the train split"),
    ):
        (INBOX / "labels.csv").write_text(text)
        write_params(download={"dataset": "csv", "csv": csv})
        download.main()
        with pytest.raises(SystemExit, match=reason):
            transform.main()


def test_images_are_read_in_their_order() -> None:
    write_params(download={"dataset": "folder"})
    download.main()
    source = image_files.read(write_params(download={"dataset": "folder"}).transform).training
    places = np.concatenate([places for _, places in source.chunks()])
    assert places.tolist() == list(range(60))
