"""The charts of the report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flows.report import charts
from tasks.evaluation import pictures
from tasks.evaluation.record import Bin, Temperature
from tasks.prepared import Split
from tests.support.made import made_images
from tests.support.reports import METRICS


def test_reliability_is_drawn_before_and_after_the_temperature() -> None:
    drawn = charts.svg(charts.calibration(METRICS)).decode()
    assert "as trained: error 5.0%" in drawn
    assert "at temperature 0.9: error 1.0%" in drawn
    unfitted = charts.svg(charts.calibration(replace(METRICS, temperature=Temperature(1.0, 3, "too few")))).decode()
    assert "as trained: error 5.0%" in unfitted
    assert "at temperature" not in unfitted


def test_a_bin_at_either_end_is_drawn() -> None:
    ends = [Bin(confidence=0.0, accuracy=0.0, images=1), Bin(confidence=1.0, accuracy=1.0, images=1)]
    assert charts.svg(charts.calibration(replace(METRICS, calibration=ends)))


def test_the_pairs_that_are_confused_most() -> None:
    counts = [[5, 3, 0], [1, 9, 0], [0, 4, 6]]
    assert charts.most_confused(counts, ["a", "b", "c"], 2) == [
        {"actual": "c", "predicted": "b", "images": 4, "share": 0.4},
        {"actual": "a", "predicted": "b", "images": 3, "share": 3 / 8},
    ]
    assert len(charts.most_confused(counts, ["a", "b", "c"])) == 3


def test_charts_take_a_hundred_classes_and_the_same_figures_give_the_same_bytes() -> None:
    counts: Any = np.random.default_rng(0).integers(0, 9, (100, 100)).tolist()
    first, second = (charts.svg(charts.confusion_matrix(counts, [f"class {n}" for n in range(100)])) for _ in range(2))
    assert first == second
    assert len(first) < 1e6


def test_a_long_name_of_a_class_leaves_room_for_the_matrix() -> None:
    drawn = charts.svg(charts.confusion_matrix([[1, 0], [0, 1]], ["a very long name " * 20, "x" * 24])).decode()
    assert "a very long name a very…" in drawn
    assert "x" * 24 in drawn


def test_names_of_classes_are_no_formulas_and_need_no_letters_of_matplotlibs(tmp_path: Path) -> None:
    names = ["$5 or $10", "a$_$b", "猫"]
    figure = charts.confusion_matrix([[1, 0, 0], [0, 1, 0], [0, 0, 1]], names)
    drawn = charts.svg(figure).decode()
    assert all(name in drawn for name in names)
    images, labels = made_images(2)
    pictures.predictions(Split(images, labels), labels, names[:2], 2).savefig(tmp_path / "x.png")
