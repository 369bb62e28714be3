"""What ends a stage, one cause at a time; whole runs are stopped in test_kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.harness import lifeline
from tests.support.params import ROOT

LOOKED_S = lifeline.POLL_S + 0.1  # after so long it has looked whether it has to end

# Attached, then held up in C code, as in a long operation of torch's; `platform` is what the code takes it for.
STAGE = """
import sys
sys.platform = sys.argv[1]
from tasks.harness import lifeline
if sys.argv[2:] == ["by signal"]:
    lifeline._watch = lambda _: None
lifeline.attach("train")
print("attached", flush=True)
import time
time.sleep(60)
"""


def start(*words: str, **kwargs: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, **kwargs)  # type: ignore[call-overload, no-any-return]


def wait_for_attached(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "attached\n"


@pytest.mark.parametrize("torchrun", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(number: signal.Signals, torchrun: bool) -> None:
    """Whoever torchrun ends, by SIGTERM, says nothing: another has failed, and has said why."""
    by = {lifeline.STARTED_BY_TORCHRUN: "1"} if torchrun else {}
    stage = start(sys.executable, "-c", STAGE, sys.platform, env=os.environ | by)
    wait_for_attached(stage)
    stage.send_signal(number)
    _, printed = stage.communicate(timeout=5)
    assert stage.returncode == 128 + number
    said = f"\ntrain: stopped by {number.name}. Go on with `make run` or `dvc repro`\n"
    assert printed == ("" if torchrun and number == signal.SIGTERM else said)


@pytest.mark.parametrize("how", ["linux", "linux by signal", "darwin"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_death_of_its_parent(how: str, number: signal.Signals) -> None:
    # A parent that waits for it, as DVC does: a shell of which it is not the last command.
    words = how.split(" ", 1)
    parent = start("sh", "-c", '"$0" -c "$@"; true', sys.executable, STAGE, *words)
    wait_for_attached(parent)
    (stage,) = psutil.Process(parent.pid).children()
    parent.send_signal(number)
    deadline = time.monotonic() + 2
    # Where nobody reaps orphans one that has ended is a zombie.
    while stage.is_running() and stage.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.monotonic() < deadline
    _, printed = parent.communicate(timeout=5)
    assert printed == "\ntrain: stopped, because the run that started it ended. Go on with `make run` or `dvc repro`\n"


def test_the_end_of_the_flow_that_holds_its_standard_input() -> None:
    environment = os.environ | {"STAGE_LIFELINE": "1"}
    stage = start(sys.executable, "-c", STAGE, sys.platform, stdin=subprocess.PIPE, env=environment)
    wait_for_attached(stage)
    time.sleep(LOOKED_S)
    assert stage.poll() is None
    assert stage.stdin is not None
    stage.communicate(timeout=2)  # closes it
    assert stage.returncode == 143


def test_a_closed_standard_input_is_no_end_for_who_has_no_lifeline() -> None:
    stage = start(sys.executable, "-c", STAGE, sys.platform, stdin=subprocess.DEVNULL)
    wait_for_attached(stage)
    time.sleep(LOOKED_S)
    assert stage.poll() is None
    stage.kill()
    stage.communicate()


def test_a_worker_in_a_session_of_its_own_is_no_orphan() -> None:
    """As torchrun starts its workers, in a stage that DVC has started."""
    environment = os.environ | {"DVC_STAGE": "train"}
    worker = start(sys.executable, "-c", STAGE, sys.platform, env=environment, start_new_session=True)
    wait_for_attached(worker)
    time.sleep(LOOKED_S)
    assert worker.poll() is None
    worker.kill()
    worker.communicate()


PUBLISHING = """
import os, sys, time
from tasks.harness import lifeline
from tasks.harness.stage import stage
lifeline._watch = lambda stage: None  # the slowest of watchers
sys.platform = "none"
lifeline.attach("train")
with stage("train", writes=["late"]) as running:
    running.path("late").touch()
    print("attached", flush=True)
    while os.getppid() == lifeline._parent:
        time.sleep(0.01)
print("published", flush=True)
"""


def test_nothing_is_published_once_the_parent_is_dead(tmp_path: Path) -> None:
    command = 'cd "$2" && PYTHONPATH="$3" "$0" -c "$1"; true'
    parent = start("sh", "-c", command, sys.executable, PUBLISHING, str(tmp_path), str(ROOT))
    wait_for_attached(parent)
    (stage,) = psutil.Process(parent.pid).children()
    parent.kill()
    time.sleep(0.5)
    assert not (tmp_path / "late").exists()
    stage.kill()
    printed, _ = parent.communicate()
    assert "published" not in printed


def test_a_process_that_only_imports_it_is_not_attached(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text("import sys, tasks.harness.lifeline as l; sys.exit(l._parent)")
    for words in (("-m", "probe"), ("-m", "probe", "tasks", "train")):
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
        assert subprocess.run((sys.executable, *words), env=environment, check=False).returncode == 0
