"""What a stage depends on: what has changed since its start, and a digest of it all."""

import os
from pathlib import Path

import pytest

from tasks.harness import code, inputs
from tests.support.params import ROOT, write_params


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def test_the_code_that_a_stage_has_loaded_is_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = inputs.Inputs((), ())
    assert nothing.changed() == []
    assert ROOT / "tasks/harness/inputs.py" in code.loaded()
    monkeypatch.setitem(code.at_start(), ROOT / "tasks/harness/inputs.py", "what it was before an edit")
    assert nothing.changed() == ["tasks/harness/inputs.py"]


def test_the_digest_is_of_contents_and_not_of_times_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests: list[str] = []
    for name, content in (("here", "1"), ("there", "1"), ("elsewhere", "2")):
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        (folder / "data/a").write_text(content)
        os.utime(folder / "data/a", (len(digests), 0))
        monkeypatch.chdir(folder)
        write_params()
        digests.append(inputs.Inputs(["data"], ["train"]).digest())
    assert digests[0] == digests[1] != digests[2]
    write_params(train={"epochs": 3})
    assert inputs.Inputs(["data"], ["train"]).digest() != digests[2]
