"""The flow on a schedule: its options, and what its form allows."""

import pytest

from flows import retraining
from flows.runtime import schedule
from tasks.data.datasets import DATASETS


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run beside a server."""
    monkeypatch.delenv("CRON", raising=False)
    started: list[list[str]] = []
    monkeypatch.setattr(schedule, "run", started.append)
    return started


@pytest.mark.parametrize("cron", ["", "0 3 * *", "0 3 * * * *", "61 3 * * *"])
def test_a_cron_expression_that_is_none(cron: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        retraining.main(["--cron", cron])
    message = f'{cron!r} is no cron expression; five fields are, for example "0 3 * * *"'
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_a_cron_expression_that_never_comes_due(
    cron: str, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        retraining.main(["--cron", cron])
    assert f"{cron!r} never comes due: no such date exists" in capsys.readouterr().err
    assert commands == []


@pytest.mark.parametrize("cron", ["0 0 29 2 *", "0 0 31 12 *", "0 0 31 * *", "*/5 * * * 1-5"])
def test_a_cron_expression_that_comes_due_seldom(cron: str, commands: list[list[str]]) -> None:
    retraining.main(["--cron", cron])
    assert commands[0][-2] == cron


@pytest.mark.parametrize("seconds", ["0", "-1", "often"])
def test_an_interval_that_is_none(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        retraining.main([f"--interval={seconds}"])
    assert f"{seconds!r} is no number of seconds" in capsys.readouterr().err


def test_a_schedule_is_a_cron_expression_or_an_interval(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    retraining.main(["--cron", "0 3 * * *"])
    retraining.main(["--interval", "15"])
    assert [command[-3:] for command in commands] == [["flows.serve", "0 3 * * *", "0"], ["flows.serve", "", "15"]]
    with pytest.raises(SystemExit, match="2"):
        retraining.main([])
    monkeypatch.setenv("CRON", "0 4 * * *")
    retraining.main([])
    retraining.main(["--interval", "15"])
    assert [command[-2:] for command in commands[2:]] == [["0 4 * * *", "0"], ["", "15"]]
    monkeypatch.setenv("CRON", "0 4")
    with pytest.raises(SystemExit, match="2"):
        retraining.main([])


def test_the_form_offers_every_dataset_and_the_bounds_of_params() -> None:
    form = retraining.retraining.parameters.properties
    assert form["dataset"]["anyOf"][0] == {"type": "string", "enum": list(DATASETS)}
    assert form["epochs"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 10_000}
