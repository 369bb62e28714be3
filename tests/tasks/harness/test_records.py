"""The JSON files of the stages."""

from pathlib import Path

import pytest

from tasks.harness.errors import StageError
from tasks.harness.records import read_json, write_json


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
        ('{"schema_version": 2}', "a.json has schema version 2, this code reads 1"),
    ],
)
def test_json_of_another_kind_is_refused(text: str, reason: str) -> None:
    Path("a.json").write_text(text)
    with pytest.raises(StageError, match=reason):
        read_json(Path("a.json"))
