"""The JSON files of the stages."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tasks.harness.errors import StageError
from tasks.harness.records import parse, read_json, read_record, write_json


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def test_json_carries_its_schema_version() -> None:
    write_json(Path("a.json"), {"accuracy": 0.5})
    assert Path("a.json").read_text() == '{\n  "schema_version": 1,\n  "accuracy": 0.5\n}\n'
    assert read_json(Path("a.json")) == {"accuracy": 0.5}


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(Path("a.json"), {"loss": float("nan")})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "a.json is not what a stage wrote"),
        ("[]", "a.json is not what a stage wrote"),
        ('{"accuracy": 1}', "a.json is not what a stage wrote"),
        ("[" * 100_000, "a.json is not what a stage wrote"),
        ('{"schema_version": 2}', "a.json has schema version 2, this code reads 1"),
    ],
)
def test_json_of_another_kind_is_refused(text: str, reason: str) -> None:
    Path("a.json").write_text(text)
    with pytest.raises(StageError, match=reason):
        read_json(Path("a.json"))


@dataclass(frozen=True)
class Part:
    size: int


@dataclass(frozen=True)
class Whole:
    name: str
    part: Part
    shares: list[float]


def test_a_record_is_read_as_the_dataclass_that_it_was() -> None:
    whole = Whole("a", Part(1), [0.5, 1])
    write_json(Path("a.json"), asdict(whole))
    assert read_record(Path("a.json"), Whole) == whole


@dataclass(frozen=True)
class Found:
    images: int
    copies: int = 0


def test_a_key_that_is_missing_is_no_default() -> None:
    write_json(Path("a.json"), {"images": 1})
    with pytest.raises(StageError, match=r": copies: missing; run make run$"):
        read_record(Path("a.json"), Found, again="run make run")


def test_a_part_of_a_file_is_refused_by_where_it_stands() -> None:
    with pytest.raises(
        StageError, match=r": part\.more: unknown key; part\.size = '5': input should be a valid integer"
    ):
        parse({"size": "5", "more": 1}, Part, Path("a.json"), at=("part",))


def test_a_record_is_refused_with_every_value_that_is_wrong() -> None:
    write_json(Path("a.json"), {"name": 1, "part": {"size": "5"}, "shares": ["x" * 1000], "more": 2})
    with pytest.raises(StageError) as refused:
        read_record(Path("a.json"), Whole)
    message = str(refused.value)
    assert message.startswith(
        "a.json is refused, it is not what a stage wrote: more: unknown key; name = 1: input should"
    )
    assert "part.size = '5': input should be a valid integer" in message
    assert "shares.0 = 'xxx" in message
    assert len(message) < 500
    write_json(Path("a.json"), {"name": "a", "shares": []})
    with pytest.raises(StageError, match="part: missing; run dvc repro"):
        read_record(Path("a.json"), Whole)
