"""How DVC is asked for a stage, on made stages."""

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks import dvc
from tasks.dvc import ANSWERS, StageFailed, StageTimedOut, log_path, reproduce

LOGGER = logging.getLogger("test")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty DVC repository without git, for the copies in which stages run."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run((sys.executable, "-m", "dvc", "init", "--no-scm", "-q"), cwd=folder, check=True)
    return folder


@pytest.fixture
def log(repository: Path, workspace: Path, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """A DVC repository in the workspace, and what the tasks log."""
    shutil.copytree(repository, workspace, dirs_exist_ok=True)
    caplog.set_level(logging.INFO, "test")
    return caplog


def write_stage(command: str) -> None:
    Path("dvc.yaml").write_text(f"stages:\n  train:\n    cmd: {command}\n    deps: [input]\n    outs: [output]\n")


def test_each_of_dvcs_answers_is_understood(log: pytest.LogCaptureFixture) -> None:
    write_stage("cp input output")
    found = []
    for contents in ("1", "1", "2", "1"):
        Path("input").write_text(contents)
        found.append(reproduce("train", 60, LOGGER).outcome)
    assert found == ["ran", "up to date", "ran", "restored"]
    assert set(found) == set(ANSWERS.values())
    assert [line.split(",")[0] for line in log.messages if line.startswith("train: ")] == [f"train: {o}" for o in found]


def test_a_stage_on_request_is_understood_though_dvc_says_what_it_was_asked_for(log: pytest.LogCaptureFixture) -> None:
    Path("params.yaml").write_text("to: [int8]")
    Path("dvc.yaml").write_text(
        "stages:\n  train:\n    foreach: ${to}\n    do:\n      cmd: cp input ${item}\n      deps: [input]\n"
        "      outs: ['${item}']\n"
    )
    found = []
    for contents in ("1", "1", "2", "1"):
        Path("input").write_text(contents)
        found.append(reproduce("train", 60, LOGGER).outcome)
    assert found == ["ran", "up to date", "ran", "restored"]


def test_lines_arrive_as_they_are_printed_and_this_python_comes_first(log: pytest.LogCaptureFixture) -> None:
    Path("input").touch()
    Path("output.py").write_text("import sys, time\nprint(sys.executable)\nprint('loss: 2 %s')\n")
    with Path("output.py").open("a") as file:
        file.write("open('output', 'w')\ntime.sleep(0.5)\nprint('end')\n")
    write_stage("python output.py")
    reproduce("train", 60, LOGGER)
    times = {record.getMessage(): record.created for record in log.records}
    assert str(Path(sys.executable)) in times
    assert times["end"] - times["loss: 2 %s"] > 0.4


def test_a_stages_own_last_sentence_is_the_reason(log: pytest.LogCaptureFixture) -> None:
    Path("input").touch()
    write_stage('"echo train: loss: 3; echo train: epochs is wrong; echo use another; exit 1"')
    with pytest.raises(StageFailed) as failed:
        reproduce("train", 60, LOGGER)
    assert failed.value.reason == "train: epochs is wrong\nuse another"
    assert str(failed.value) == "train: epochs is wrong"
    assert "train: loss: 3" in log.messages
    assert {"train: epochs is wrong", "use another"}.isdisjoint(log.messages), "told at the end alone"


def test_what_only_begins_like_a_last_sentence_is_passed_on(log: pytest.LogCaptureFixture) -> None:
    Path("input").touch()
    write_stage('"echo train: loss: 3 && echo more && cp input output"')
    reproduce("train", 60, LOGGER)
    assert {"train: loss: 3", "more"} <= set(log.messages)


def test_a_stage_without_a_last_sentence_gives_dvcs_reason(log: pytest.LogCaptureFixture) -> None:
    Path("input").touch()
    write_stage('"echo Traceback; exit 3"')
    with pytest.raises(StageFailed, match=r"^train: ERROR: failed to reproduce 'train'.*exited with 3"):
        reproduce("train", 60, LOGGER)


def test_a_stage_that_the_system_killed_may_have_had_too_little_memory(log: pytest.LogCaptureFixture) -> None:
    Path("input").touch()
    for command in ("kill -9 $$", "sh -c 'kill -9 $$'; exit 137"):
        write_stage(f'"echo train: loss: 3; {command}"')
        with pytest.raises(
            StageFailed, match=r"^train: killed by SIGKILL, .* memory .* a smaller batch_size take less$"
        ):
            reproduce("train", 60, LOGGER)


def test_dvcs_own_errors_are_the_reason(log: pytest.LogCaptureFixture) -> None:
    write_stage("cp input output")
    with pytest.raises(StageFailed, match=r"^train: ERROR: .*No such file or directory: .*input"):
        reproduce("train", 60, LOGGER)


def test_a_stage_that_takes_too_long_is_stopped_with_its_children(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("input").touch()
    monkeypatch.setattr(dvc, "PATIENCE_S", 0.2)
    seconds = f"61.{os.getpid()}"  # which no other run of this test waits for
    write_stage(f"sleep {seconds}")
    started = time.monotonic()
    reason = r"^train: stopped after 1\.5 s, the limit in flow\.time_limit_s\.train$"
    with pytest.raises(StageTimedOut, match=reason) as late:
        reproduce("train", 1.5, LOGGER)
    assert isinstance(late.value, TimeoutError)
    assert time.monotonic() - started < 8
    assert not [process for process in psutil.process_iter(["cmdline"]) if seconds in (process.info["cmdline"] or [])]


def test_it_waits_for_another_dvc_command(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("input").touch()
    write_stage('"touch started; while test ! -e end; do sleep 0.05; done; touch output"')
    with subprocess.Popen((sys.executable, "-m", "dvc", "repro", "-q", "--single-item", "train")) as other:
        while not Path("started").exists():
            time.sleep(0.05)
        monkeypatch.setattr("tasks.dvc.time.sleep", lambda _: Path("end").touch())  # once it has found DVC busy
        try:
            assert reproduce("train", 60, LOGGER).outcome == "up to date"
        finally:
            Path("end").touch()
        assert other.wait() == 0
    assert "DVC is busy with another command; train is asked for again in 2 s" in log.messages


def test_the_output_of_a_stage_is_kept(log: pytest.LogCaptureFixture) -> None:
    Path("input").touch()
    write_stage('"echo loss: 3; exit 1"')
    with pytest.raises(StageFailed) as failed:
        reproduce("train", 60, LOGGER)
    assert failed.value.stage == "train"
    assert "loss: 3\n" in log_path("train").read_text()


def test_what_stops_a_stage_is_noted_with_the_stage(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        assert dvc.AT_WORK.locked()
        raise KeyboardInterrupt

    Path("input").touch()
    write_stage("cp input output")
    monkeypatch.setattr(dvc, "interruptions", [])
    monkeypatch.setattr(LOGGER, "log", interrupt)
    with pytest.raises(KeyboardInterrupt) as stopped:
        reproduce("train", 60, LOGGER)
    assert dvc.interruptions == [stopped.value]
    assert stopped.value.__notes__ == ["in the stage train"]
    assert not dvc.AT_WORK.locked()
