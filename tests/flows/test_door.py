"""python -m flows COMMAND: what it lists and what it refuses."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import __main__ as door
from tests.support.params import ROOT

USAGE = "usage: python -m flows training [-h] [-S [params.yaml:]key=value]\n"


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_it_lists_its_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    door.main(words)
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in ("training", "run", "retraining", "report"))
    assert max(map(len, printed.splitlines())) <= 80


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        door.main(["train"])
    assert capsys.readouterr().err.endswith("\nflows: train is no command\n")


def test_a_command_gets_the_options_that_follow_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        door.main(["training", "--help"])
    assert capsys.readouterr().out.startswith(USAGE)


def test_the_module_of_the_training_flow_is_still_a_command_of_its_own() -> None:
    command = (sys.executable, "-m", "flows.training", "--help")
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith(USAGE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_command_has_been_imported_ends_it_in_one_line(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    script = "from flows import __main__ as door; door.COMMANDS['slow'] = ('slow', ''); door.main(['slow'])"
    path = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    answer = subprocess.run((sys.executable, "-c", script), env=path, capture_output=True, text=True, check=False)
    assert answer.returncode == 128 + number
    assert answer.stderr == f"stopped by {number.name} before the run began\n"


def test_a_command_says_its_first_line_before_prefect_is_imported() -> None:
    modules = [module for module, _ in door.COMMANDS.values()]
    script = f"import sys, {', '.join(modules)}; print([name for name in ('prefect', 'torch') if name in sys.modules])"
    answer = subprocess.run((sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


@pytest.mark.parametrize(("theirs", "ours"), [(None, "1"), ("0", "0")], ids=["unset", "chosen by the user"])
def test_prefect_collects_no_data_unless_the_user_has_said_so(
    theirs: str | None, ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "import_module", lambda _: SimpleNamespace(main=lambda _: None))
    monkeypatch.setenv("DO_NOT_TRACK", theirs or "")
    if theirs is None:
        monkeypatch.delenv("DO_NOT_TRACK")
    door.main(["training"])
    assert os.environ["DO_NOT_TRACK"] == ours
