"""The files that DVC leaves cut off if it is killed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML

from flows.runtime import dvc_files
from tests.support.params import ROOT


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def test_files_that_dvc_left_cut_off_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc_files, "SETTLED_S", 0.2)
    Path(".dvc/tmp").mkdir(parents=True)
    for text in ("", "schema: '2.0'\nstages:\n  train:\n    cmd: \"py"):
        Path("dvc.lock").write_text(text)
        Path(".dvc/tmp/rwlock").write_text('{"write": {"da')
        assert dvc_files.remove_damaged() == [dvc_files.LOCK, dvc_files.RWLOCK]
        assert not Path("dvc.lock").exists()
        assert not Path(".dvc/tmp/rwlock").exists()


def test_dvc_takes_what_is_left_of_a_lock_that_was_cut_off_anywhere() -> None:
    whole = (ROOT / "dvc.lock").read_text()
    # Of one stage what it has of each kind: a folder and a file, parameters of all types, outputs.
    stage = whole[whole.index("\n  export:\n") + 1 :]
    text = whole[: whole.index("  download:")] + stage[: stage.index("    - path: models/model.pth")]
    text += stage[stage.index("    params:") :]
    kept = 0
    for end in sorted({*range(1, len(text), 3), *(line.end() for line in re.finditer("\n", text))}):
        if dvc_files._is_lock(text[:end]):
            kept += 1
            COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text[:end]))
    assert kept > 5, "what DVC can use is used"


def test_a_merge_that_is_not_finished_is_left_to_the_user() -> None:
    Path("dvc.lock").write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n")
    assert dvc_files.remove_damaged() == []


def test_files_that_are_whole_stay() -> None:
    Path(".dvc/tmp").mkdir(parents=True)
    Path("dvc.lock").write_text((ROOT / "dvc.lock").read_text())
    Path(".dvc/tmp/rwlock").write_text("{}")
    assert dvc_files.remove_damaged() == []
    assert Path("dvc.lock").exists()


def test_a_file_that_dvc_is_about_to_finish_stays() -> None:
    Path("dvc.lock").write_text("")
    script = "import time; time.sleep(0.3); open('dvc.lock', 'w').write('schema: 2.0\\nstages: {}\\n')"
    with subprocess.Popen((sys.executable, "-c", script)):
        assert dvc_files.remove_damaged() == []
