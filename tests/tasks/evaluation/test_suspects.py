"""Labels that the model doubts: wrong ones come first."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks import evaluate, train, transform
from tasks.evaluation import pictures, scores, suspects
from tasks.prepared import SPLITS, Split
from tests.support.made import idx
from tests.support.params import write_params

NAMES = ["cat", "dog", "eel"]


def logits_for(predicted: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), 3).float() * 5


def test_images_with_a_wrong_label_are_the_first_suspects(raw: Path) -> None:
    """Images that are bright on the left or on the right, of which one in eleven is labelled as the other."""
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    images = generator.integers(0, 128, (200, 28, 28, 1), np.uint8)
    images[labels == 0, :, :14] += 127
    images[labels == 1, :, 14:] += 127
    wrong = set(range(0, 200, 11))
    given = np.array([1 - label if index in wrong else label for index, label in enumerate(labels)])
    (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(given))
    write_params(train={"epochs": 5}, evaluate={"pictures": 8})
    transform.main()
    train.main()
    evaluate.main()
    pixels = {image.tobytes(): index for index, image in enumerate(images)}
    with Path("reports/suspects.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "test"]
    found = set()
    for row in rows[: len(wrong)]:
        place = re.fullmatch(r"(train|validation)\[(\d+)\]", row["image"])
        assert place
        found.add(pixels[Split.read(row["split"]).images[int(place[2])].tobytes()])  # type: ignore[arg-type]
        assert row["label"] != row["predicted"]
    assert len(found & wrong) >= 18  # of 19


def test_of_many_suspects_those_with_the_highest_loss_are_kept(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MAX_SUSPECTS", 3)
    scored = {
        split: scores.of(torch.tensor([[float(loss), 0.0, 0.0] for loss in losses]), torch.ones(4, dtype=torch.int64))
        for split, losses in zip(SPLITS, ([1, 5, 2, 3], [4, 9, 1, 1], [2, 2, 8, 2]), strict=True)
    }
    found = suspects.suspects(scored, NAMES)
    assert [suspect.image for suspect in found] == ["validation[1]", "test[2]", "train[1]"]


def test_a_model_that_agrees_with_every_label_has_no_suspects(evaluated: Path) -> None:
    certain = {split: scores.of(logits_for([0, 1]), torch.tensor([0, 1])) for split in SPLITS}
    assert suspects.suspects(certain, NAMES) == []
    assert "0 images" in pictures.suspects({}, []).get_suptitle()
