"""Prefect beside the versions in the lock: its own command line, and a server of it that hangs."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil

from flows.runtime import server
from tests.support.params import ROOT
from tests.support.project import QUICK_DIGITS, Command, copy_project

LISTS = (
    "artifact ls",
    "automation ls",
    "block ls",
    "block type ls",
    "concurrency-limit ls",
    "deployment ls",
    "flow ls",
    "flow-run ls",
    "global-concurrency-limit ls",
    "task-run ls",
    "variable ls",
    "work-pool ls",
    "work-queue ls",
)
# In one process: an import of Prefect for each of them would take half a minute.
ASK_ALL = """
import sys
from flows.runtime import server
server.for_run()
from prefect.cli import app
for words in sys.argv[1:]:
    sys.argv[1:] = words.split()
    try:
        app()
    except SystemExit as end:
        print("ended", end.code, words)
"""


def test_every_list_of_prefects_command_line_is_answered(tmp_path: Path, command: Command) -> None:
    printed = command("python", "-c", ASK_ALL, *LISTS, cwd=tmp_path, PYTHONPATH=str(ROOT)).stdout
    assert [line for line in printed.splitlines() if line.startswith("ended ")] == [
        f"ended 0 {words}" for words in LISTS
    ]


def test_a_server_that_hangs_ends_the_run_within_30_s_after_its_stage(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    project = copy_project(tmp_path, QUICK_DIGITS)
    words = ("python", "-m", "flows", "training")
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(words, cwd=project, env=environment, stdout=pipe, stderr=merged, text=True) as flow:
        assert flow.stdout is not None
        printed = []
        for line in flow.stdout:
            printed.append(line)
            if "Running stage 'transform'" in line:
                stopped = json.loads((project / server.TEMPORARY).read_text())["pid"]
                os.kill(stopped, signal.SIGSTOP)
            if ": ran, " in line:
                over = time.monotonic()
    assert time.monotonic() - over < 30
    assert flow.returncode == 1
    assert printed[-1].startswith("training stopped. Prefect's server at ")
    assert "Traceback" not in "".join(printed)
    assert not psutil.pid_exists(stopped)
