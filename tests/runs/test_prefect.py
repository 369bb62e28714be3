"""Prefect's own command line, for whoever looks at the runs from a terminal, beside the versions in the lock."""

from pathlib import Path

from tests.support.params import ROOT
from tests.support.project import Command

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
