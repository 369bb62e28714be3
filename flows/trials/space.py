"""What a search may try: the ranges of params.yaml, checked against the rest of it, and as Optuna has them."""

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ruamel.yaml import YAML

from flows import overrides
from tasks.harness.errors import ParamsError, shown
from tasks.harness.section import PARAMS
from tasks.params.search import Range

SECTIONS = ("transform", "train")  # what a trial runs, and what its validation images can tell apart
DIGITS = 4  # of a number that is drawn: more would tell nothing apart, and nobody could read them

Values = dict[str, Any]  # of params.yaml, by their keys joined with dots


class Space:
    """The ranges of a search.

    Args:
        ranges: by key of params.yaml.
        text: params.yaml, which has a value for each of these keys.

    Raises:
        ParamsError: lists every key that there is not, and every value that params.yaml could not have.
    """

    def __init__(self, ranges: Mapping[str, Range], text: str) -> None:
        self.ranges = dict(ranges)
        self.now = dict(overrides.flatten(YAML(typ="safe").load(text)))
        wrong = [reason for key, one in self.ranges.items() for reason in self._reasons(key, one, text)]
        if wrong:
            raise ParamsError(f"{PARAMS} is refused:\n" + "\n".join(f"  search.space.{reason}" for reason in wrong))

    def distributions(self) -> dict[str, BaseDistribution]:
        return {key: _distribution(one) for key, one in self.ranges.items()}

    def decode(self, drawn: Mapping[str, Any]) -> Values:
        """Turn what Optuna has drawn into values of params.yaml."""
        return {key: _decoded(one, drawn[key]) for key, one in self.ranges.items()}

    def begin(self) -> Values | None:
        """Return what params.yaml has now, as Optuna would have drawn it; None: it is not in the space."""
        drawn = {key: _encoded(one, self.now[key]) for key, one in self.ranges.items()}
        return None if None in drawn.values() else drawn

    def _reasons(self, key: str, one: Range, text: str) -> list[str]:
        if key.partition(".")[0] not in SECTIONS:
            return [f"{key}: a search changes keys of {' and '.join(SECTIONS)} alone"]
        if key not in self.now:
            section = any(known.startswith(f"{key}.") for known in self.now)
            return [
                f"{key} is {'a section' if section else 'no key'} of {PARAMS}; one of its keys is train.learning_rate"
            ]
        reasons = []
        for value in one.choices if one.choices is not None else (one.low, one.high):
            try:
                overrides.apply(text, [override(key, value)])
            except ParamsError as refused:
                reasons.append(f"{key} may not be {shown(value)}: {str(refused).partition(chr(10))[2].strip()}")
        return reasons


def override(key: str, value: object) -> str:
    """Write a value as flows.overrides reads it."""
    return f"{key}={json.dumps(value)}"


def _distribution(one: Range) -> BaseDistribution:
    if one.choices is not None:
        # As JSON, because Optuna keeps no lists, and takes true for 1.
        return CategoricalDistribution([json.dumps(choice) for choice in one.choices])
    assert one.low is not None
    assert one.high is not None
    if isinstance(one.low, int) and isinstance(one.high, int):
        return IntDistribution(one.low, one.high, log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)


def _decoded(one: Range, drawn: Any) -> Any:
    if one.choices is not None:
        return json.loads(drawn)
    if isinstance(drawn, int):
        return drawn
    assert one.low is not None
    assert one.high is not None
    return min(max(float(f"{drawn:.{DIGITS}g}"), float(one.low)), float(one.high))


def _encoded(one: Range, value: Any) -> Any:
    """Turn a value into what Optuna would have drawn; None: it is not in the range."""
    if one.choices is not None:
        return next((json.dumps(choice) for choice in one.choices if json.dumps(choice) == json.dumps(value)), None)
    assert one.low is not None
    assert one.high is not None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and one.low <= value <= one.high else None
