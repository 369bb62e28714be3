"""The README, the Makefile and the locks keep their word."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from ruamel.yaml import YAML

from tasks import evaluate, export, train
from tasks.exported import graph
from tasks.params.download import WRITTEN
from tests.support import served
from tests.support.params import ROOT, write_params

README = (ROOT / "README.md").read_text()
TARGETS = {
    "help",
    "run",
    "search",
    "schedule",
    "notify",
    "report",
    "serve",
    "promote",
    "rollback",
    "pull-champion",
    "history",
    "why",
    "unit",
    "test",
    "bench",
    "load-test",
    "check",
    "predict",
    "triton",
    "lock",
    "clean",
}


def test_the_lines_that_load_the_models_work(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(train={"network": "cnn"})
    for stage in (train, evaluate, export):
        stage.main()
    onnx, pth = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(re.findall(r"^.+$", onnx, re.MULTILINE)) == 5, "as many as the README says"
    from_onnx: dict[str, np.ndarray] = {}
    from_pth: dict[str, torch.Tensor] = {}
    exec(onnx, from_onnx)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("model.pth", "model.json"):
        shutil.copy(Path("models", name), elsewhere)
    monkeypatch.chdir(elsewhere)
    exec(pth, from_pth)
    np.testing.assert_allclose(from_onnx["logits"], from_pth["logits"].detach().numpy(), atol=1e-5)


def outputs() -> list[str | dict[str, object]]:
    """List what dvc.yaml says that the stages write, that on request included."""
    text = (ROOT / "dvc.yaml").read_text().replace("${item}", "int8")
    stages = [stage.get("do", stage) for stage in YAML(typ="safe").load(text)["stages"].values()]
    return [out for stage in stages for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]


def test_the_readme_names_the_oldest_runtime() -> None:
    assert f"ONNX Runtime {graph.OLDEST_RUNTIME} is the oldest" in README


def test_every_file_that_the_readme_names_is_there() -> None:
    tracked = subprocess.run(("git", "ls-files"), cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    outs = outputs()
    made = {next(iter(out)) if isinstance(out, dict) else out for out in outs}
    made |= {"reports/report.html", "reports/report.md", "reports/report", "reports/run.json", "recipes/name.yaml"}
    made |= {
        "reports/search",
        "reports/search.png",
        "reports/search.csv",
        "models/registry",
        "models/registry/verdicts",
        "models/triton",
    }
    for name in re.findall(r"(?:flows|tasks|recipes|serving|reports|docs|models|data)/[\w./-]*\w", README):
        yours = name.startswith(("data/inbox", "data/weights"))
        assert name in made or yours or any(path.startswith(name) for path in tracked), name
    assert re.findall(r"make ([\w-]+)", README)
    assert set(re.findall(r"make ([\w-]+)", README)) <= TARGETS


def test_make_help_lists_every_target_on_a_line_of_a_terminal() -> None:
    printed = subprocess.run(("make", "help"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in printed.splitlines() if not line.startswith("make")]
    assert {line.split()[0] for line in lines} == TARGETS
    assert all(len(line.split()) > 2 and len(line) <= 80 for line in lines)


def test_make_refuses_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    code = "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[2])"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    old.chmod(0o755)
    answer = subprocess.run(
        ("make", "run", f"PYTHON={old}", f"VENV={tmp_path}/venv"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in answer.stderr
    assert "is 3.9: make PYTHON=/path/to/python3.11" in answer.stderr
    assert not (tmp_path / "venv").exists()


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run make with this Python as the project's own."""
    environment = (f"VENV={Path(sys.executable).parents[1]}", "--old-file=installed")
    return subprocess.run(("make", *environment, *words), cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_one_command_serves_and_one_asks(tmp_path: Path) -> None:
    section = README.partition("## Deployment\n")[2].partition("\n## ")[0]
    serve, ask = (line.partition("#")[0].split() for line in section.split("```")[1].strip().splitlines())
    served.save(served.model(), str(tmp_path / "model.onnx"))
    environment = {**os.environ, "PORT": "0", "MODEL": str(tmp_path / "model.onnx")}
    # As make test runs this, make would begin with the folder that it is in.
    options = ("--no-print-directory", "--old-file=installed")
    words = (*serve, f"VENV={Path(sys.executable).parents[1]}", *options)
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        address = re.search(r"http://[\d.:]+", lines[1])
        assert address, lines
        words = (*ask[:-1], ask[-1].replace("http://127.0.0.1:8080", address[0]))
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        process.terminate()
    assert json.loads(answer)["label"] == "light"


def test_make_predict_without_an_image_says_what_to_type() -> None:
    answer = make("predict")
    assert answer.returncode != 0
    assert "which image? make predict IMAGE=path.png" in answer.stderr


@pytest.mark.parametrize(
    ("target", "variable"),
    [
        ("predict", "IMAGE"),
        ("triton", "PROVIDER"),
        ("triton", "MODEL"),
        ("run", "RECIPE"),
        ("run", "DATASET"),
        ("run", "WAIT"),
        ("schedule", "CRON"),
    ],
)
def test_what_make_is_given_runs_no_second_command(target: str, variable: str, tmp_path: Path) -> None:
    value = f"x y\"; touch {tmp_path}/shell; $(shell touch {tmp_path}/make) `touch {tmp_path}/quotes` '"
    answer = make(target, f"{variable}={value}")
    assert answer.returncode != 0
    assert "touch" in answer.stderr, "Python got it as it was typed"
    assert list(tmp_path.iterdir()) == []


def test_what_make_notify_is_given_runs_no_second_command_and_is_not_repeated(tmp_path: Path) -> None:
    answer = make(
        "notify", f"URL=ftp://x y\"; touch {tmp_path}/shell; $(shell touch {tmp_path}/make) `touch {tmp_path}/quotes` '"
    )
    assert "notify: URL=ftp://... is no address that Apprise knows" in answer.stderr
    assert "touch" not in answer.stdout + answer.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("installed", ["the same", "another"])
def test_the_lock_decides_whether_to_install(tmp_path: Path, installed: str) -> None:
    lock = (ROOT / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text(lock if installed == "the same" else f"{lock}#")
    os.utime(tmp_path / "requirements.txt", (0, 0))  # long before the clone's, which is as old as the clone
    words = ("make", "--dry-run", "installed", f"VENV={tmp_path}", f"PYTHON={sys.executable}")
    planned = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ("pip install" in planned) == (installed == "another")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-serving.txt"])
def test_a_lock_has_hashes_and_no_index_url(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=sha256:", ""), re.MULTILINE)
    blocks = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    for block in blocks:
        assert re.match(r"[\w.-]+(\[[\w, -]+\])?==\S+( ; .*)? \\\n", block), block[:80]
        assert "--hash=sha256:" in block
    listed = {block.split("==")[0] for block in blocks}
    assert {package.split("[")[0] for package in listed} <= listed, "an extra without its plain name stops older pips"


def test_both_locks_hold_the_same_versions() -> None:
    def versions(name: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+(?: ; [^\\]*)?", (ROOT / name).read_text(), re.MULTILINE))

    serving = versions("requirements-serving.txt")
    assert {line.split("==")[0] for line in serving} >= {"numpy", "onnxruntime", "pillow"}
    assert not {line for line in serving if line.startswith(("torch", "prefect", "dvc"))}
    everything = versions("requirements.txt")
    # What is everywhere there is where a marker asks for it here, too.
    assert {line for line in serving if line.partition(" ;")[0] not in everything} <= everything


def test_the_lock_is_what_is_installed() -> None:
    assert f"onnxruntime=={onnxruntime.__version__} " in (ROOT / "requirements.txt").read_text()


def test_what_prefect_cannot_stand_is_held_back() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {"fastapi<0.151", "sqlalchemy<2.1", "whenever>=0.11"} <= set(dependencies)


def test_git_tracks_nothing_that_it_ignores() -> None:
    words = ("git", "ls-files", "--cached", "--ignored", "--exclude-standard")
    assert subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def test_the_readme_lists_all_that_is_written() -> None:
    """Every output of dvc.yaml, and all that download.path has to be apart from."""
    section = README.partition("## What is written")[2].partition("\n## ")[0]
    outs = outputs()
    names = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
    folders = re.findall(r"`([\w./]+/)`", section)
    for name in (*names, *WRITTEN):
        assert any(f"{name}/".startswith(folder) for folder in folders), name
