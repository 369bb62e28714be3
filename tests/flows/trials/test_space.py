"""What a search may try, and what it is refused for."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows import overrides
from flows.trials.space import Space, override
from tasks.harness import section
from tasks.harness.errors import ParamsError
from tasks.harness.section import PARAMS
from tasks.params.search import Choice, Range
from tasks.params.whole import Params
from tests.flows.trials.made import SPACE, made_space
from tests.support.params import shipped_params, write_params


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("key", "one", "reason"),
    [
        ("train.rate", {"low": 0.1, "high": 0.2}, r"train\.rate is no key of params\.yaml"),
        ("train.augment", {"choices": [1, 2]}, r"train\.augment is a section of params\.yaml"),
        ("train.epochs.x", {"choices": [1, 2]}, r"train\.epochs\.x is no key"),
        ("export.tolerance", {"low": 0.1, "high": 0.2}, "a search changes keys of transform and train alone"),
        ("download.dataset", {"choices": ["mnist", "digits"]}, "a search changes keys of transform and train alone"),
        ("search.trials", {"low": 1, "high": 2}, "a search changes keys of transform and train alone"),
        ("train.learning_rate", {"low": 0.1, "high": 20.0}, r"may not be 20\.0: train\.learning_rate = 20\.0: .* less"),
        ("train.epochs", {"low": 0, "high": 3}, r"may not be 0: train\.epochs = 0: .* greater than or equal to 1"),
        ("train.epochs", {"low": 1.5, "high": 3}, r"may not be 1\.5: .* valid integer"),
        ("train.optimizer", {"choices": ["sgd", "lion"]}, r"may not be 'lion': train\.optimizer = 'lion'"),
    ],
)
def test_what_params_could_not_have_is_refused_before_anything_runs(key: str, one: dict[str, Any], reason: str) -> None:
    with pytest.raises(ParamsError, match=rf"^params\.yaml is refused:\n  search\.space\..*{reason}"):
        made_space(**{key: Range(**one)})


def test_all_reasons_are_told_at_once() -> None:
    wrong = {"train.rate": Range(low=1, high=2), "train.epochs": Range(low=0, high=20_000)}
    with pytest.raises(ParamsError, match=r"(?s)train\.rate is no key.*may not be 0: .*may not be 20000: "):
        made_space(**wrong)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ({}, r"search\.space = \{\}: .* at least 1 item"),
        ({"train.epochs": {"low": 3, "high": 1}}, r"low = 3 should be below high = 1"),
        ({"train.epochs": {"low": 1, "high": 1}}, r"low = 1 should be below high = 1"),
        ({"train.epochs": {"low": 0, "high": 3, "log": True}}, r"low = 0 should be above 0 where log is true"),
        ({"train.epochs": {"low": 1}}, "should have low and high, or choices"),
        ({"train.epochs": {"choices": [1]}}, r"choices = \[1\]: .* at least 2 items"),
        ({"train.epochs": {"choices": [1, 1]}}, "choices should differ from each other"),
        ({"train.epochs": {"choices": [1, 2], "low": 1}}, "choices should come without low, high and log"),
        (
            {"train.epochs": {"low": 1, "hihg": 2}},
            r"train\.epochs has the unknown key hihg; known here: low, high",
        ),
        ({"train.epochs": {"low": "1", "high": 2}}, r"search\.space\.train\.epochs\.low"),
        ({"train.epochs": 3}, r"search\.space\.train\.epochs = 3"),
        (3, r"search\.space = 3"),
    ],
)
def test_what_is_no_space_is_refused_with_the_rest_of_params(space: object, reason: str) -> None:
    with pytest.raises(ParamsError, match=rf"(?s)^params\.yaml is refused:\n  .*{reason}"):
        write_params(search={"space": space})


@pytest.mark.parametrize("one", [[8, 16], None, "nearest", True, 1, 1.0, 5e-05])
def test_a_choice_comes_back_as_it_was(one: Choice) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.trials.space.overrides.apply", lambda *_: None)
        space = made_space(**{"train.optimizer": Range(choices=[one, "another"])})
    (distribution,) = space.distributions().values()
    found = [space.decode({"train.optimizer": drawn})["train.optimizer"] for drawn in distribution.choices]  # type: ignore[attr-defined]
    assert repr(found) == repr([one, "another"])


def test_numbers_have_four_digits_and_stay_in_their_range() -> None:
    space = made_space(**{"train.momentum": Range(low=0.12344, high=0.99996)})
    for drawn, value in ((0.55555555, 0.5556), (0.99996, 0.99996), (0.12344, 0.12344)):
        assert space.decode({"train.momentum": drawn}) == {"train.momentum": value}


def test_it_begins_with_what_params_have_where_that_is_in_the_space() -> None:
    assert made_space().begin() == {"train.learning_rate": 0.01, "train.batch_size": 4, "train.augment.flip": "false"}
    for key, one in (
        ("train.learning_rate", Range(low=0.1, high=0.2)),
        ("train.augment.flip", Range(choices=["a", True])),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flows.trials.space.overrides.apply", lambda *_: None)
            assert made_space(**{**SPACE, key: one}).begin() is None


def test_an_override_is_read_as_it_was_meant() -> None:
    for key, value in (("train.weight_decay", 5e-05), ("train.cnn.channels", [8, 16]), ("train.clip_norm", None)):
        text, _ = overrides.apply(PARAMS.read_text(), [override(key, value)])
        PARAMS.write_text(text)
    assert "weight_decay: 5e-05" in text
    params = overrides.check([])
    assert (params.train.weight_decay, params.train.cnn.channels, params.train.clip_norm) == (5e-05, (8, 16), None)


def test_what_is_shipped_may_be_searched_and_begins_with_itself() -> None:
    params = section.parse(Params, YAML(typ="safe").load(shipped_params()), "params.yaml")
    assert Space(params.search.space, shipped_params()).begin() is not None
