"""The project's own code: what was in it at the start, and which of it is in use."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from tasks.harness import code
from tests.support.params import ROOT


def test_every_module_below_serving_and_tasks_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = ("serving/images.py", "tasks/train.py", "tasks/harness/deeper/stage.py")
    for name in (*watched, "tasks/notes.txt", "flows/run.py", "loose.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert code.at_start.__wrapped__() == {
        tmp_path / name: hashlib.sha256(name.encode()).hexdigest() for name in watched
    }


def test_here_it_covers_the_sub_packages_and_whatever_is_loaded() -> None:
    watched = {str(path.relative_to(ROOT)) for path in code.at_start()}
    assert {"tasks/train.py", "tasks/harness/stage.py", "tasks/networks/mlp.py", "serving/images.py"} <= watched
    files = [Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    ours = {path for path in files if path.is_relative_to(ROOT / "tasks") or path.is_relative_to(ROOT / "serving")}
    assert ours == set(code.loaded())


def test_what_was_at_the_start_stays_whatever_is_edited_meanwhile() -> None:
    assert code.at_start() is code.at_start()


def test_a_module_is_loaded_once_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "tasks/harness/code.py"
    assert path in code.loaded()
    assert Path(json.__file__) not in code.loaded()
    monkeypatch.delitem(sys.modules, "tasks.harness.code")
    assert path not in code.loaded()
