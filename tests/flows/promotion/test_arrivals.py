"""What has arrived, of the data in a checkout, since the model in service was trained."""

from pathlib import Path

import numpy as np
import pytest

from flows import promote
from flows.promotion import arrivals, history
from tasks.gates.verdict import Verdict
from tasks.params import whole
from tasks.prepared import Split


@pytest.fixture
def served(ready: Path) -> Path:
    """The registry, with a model in service."""
    promote.main([])
    return ready


def look(root: Path) -> Verdict:
    return arrivals.look(root, history.read(root), whole.load())


def arrive(images: int, label: int | None = None, instead: bool = False) -> None:
    """Have random images arrive among the training images, or instead of them."""
    old = Split.read("train")
    random = np.random.default_rng(0)
    new = random.integers(0, 256, (images, *old.images.shape[1:]), dtype=np.uint8)
    labels = random.integers(0, 10, images) if label is None else np.full(images, label)
    np.save("data/prepared/train_images.npy", new if instead else np.concatenate([old.images, new]))
    np.save("data/prepared/train_labels.npy", labels if instead else np.concatenate([old.labels, labels]))


def test_the_images_that_it_was_trained_on_are_none(served: Path) -> None:
    verdict = look(served)
    assert (verdict.outcome, verdict.figures["arrivals"]) == ("not run", 0)


def test_images_that_are_held_out_now_are_not_gone(served: Path) -> None:
    for kind in ("images", "labels"):
        train, test = (np.load(f"data/prepared/{name}_{kind}.npy") for name in ("train", "test"))
        np.save(f"data/prepared/train_{kind}.npy", train[:2])
        np.save(f"data/prepared/test_{kind}.npy", np.concatenate([test, train[2:]]))
    assert look(served).figures["training images that are gone"] == 0


@pytest.mark.parametrize("images", [0, 49])
def test_few_arrivals_are_not_looked_at(served: Path, images: int) -> None:
    arrive(images)
    verdict = look(served)
    assert verdict.outcome == "not run"
    assert verdict.reasons == [f"{images} images have arrived, and retraining.arrivals.min_images is 50"]


def test_new_images_are_looked_at_and_no_others(served: Path) -> None:
    arrive(60)
    verdict = look(served)
    assert verdict.figures["arrivals"] == 60
    assert verdict.figures["training images that are gone"] == 0
    assert verdict.figures["its recorded accuracy"] == 0.625


def test_new_images_of_one_class_alone_block(served: Path) -> None:
    arrive(60, label=3)
    verdict = look(served)
    assert verdict.outcome == "failed"
    assert any(reason.startswith("all 60 arrivals are labelled ") for reason in verdict.reasons)


def test_images_that_are_gone_block(served: Path) -> None:
    arrive(6, instead=True)
    verdict = look(served)
    assert verdict.outcome == "failed"
    assert verdict.reasons[0].startswith("100.0% of the training images of the model in service are gone")


def test_before_there_is_a_model_there_is_nothing_to_compare_with(ready: Path) -> None:
    assert look(ready).reasons == ["no model is in service yet"]


def test_a_model_of_other_images_cannot_be_compared(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("data/prepared/dataset.json")
    path.write_text(path.read_text().replace('"T-shirt/top"', '"Shirt/top"'))
    assert look(served).reasons[0].endswith("in service, has other classes, or takes other images")
