"""dvc.yaml against the code: what each stage imports, and which parameters it reads."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tasks import __main__ as door
from tasks import stages
from tasks.data import fetch
from tasks.harness import section
from tasks.harness.section import Section
from tasks.params.flow import TimeLimits
from tasks.params.whole import Params
from tests.support.params import ROOT, write_params

STAGES = ["download", "transform", "train", "evaluate", "export", "quantize"]
NO_STAGE = ("flow", "retraining", "search")  # sections of params.yaml that no stage depends on
# With what stands there of a stage on request where it is asked for.
DVC_YAML = (ROOT / "dvc.yaml").read_text().replace("${item}", "int8")
PIPELINE: dict[str, Any] = {
    name: stage.get("do", stage) for name, stage in YAML(typ="safe").load(DVC_YAML)["stages"].items()
}
# By name, because it can refuse to run a stage, but never change a byte of what the stage makes.
EXEMPT = ROOT / "tasks/params/whole.py"


@cache
def imports(path: Path) -> frozenset[Path]:
    """List the project's modules that `path` imports, at any depth and inside functions too, itself included."""
    found: set[Path] = set()
    open_ = {path}
    while open_:
        found.add(module := open_.pop())
        open_ |= direct_imports(module) - found
    return frozenset(found)


@cache
def direct_imports(path: Path) -> set[Path]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return {file for name in names for file in modules(name)} - {EXEMPT}


def modules(name: str) -> Iterator[Path]:
    """Yield the file of the module `name`, where it is one of the project's."""
    file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    if file.is_file():
        yield file


def code(stage: str) -> set[Path]:
    """List the modules that a stage consists of: the door's and its own, with all that they import."""
    return {*imports(ROOT / "tasks/__main__.py"), *imports(ROOT / "tasks" / f"{stage}.py")}


def dependencies(stage: str) -> list[str]:
    """List the files and folders of code that dvc.yaml says a stage depends on."""
    return [dep for dep in PIPELINE[stage]["deps"] if dep.startswith(("tasks/", "serving/"))]


def test_stages_modules_params_and_tasks_have_the_same_names() -> None:
    assert list(PIPELINE) == [*door.STAGES, *door.ON_REQUEST] == STAGES
    assert [name for name in Params.model_fields if name not in NO_STAGE] == STAGES
    assert list(TimeLimits.model_fields) == STAGES
    for name in STAGES:
        assert PIPELINE[name]["cmd"] == f"exec python -m tasks {name}"
        assert import_module(f"tasks.{name}").main
        assert getattr(stages, name).name == name


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_imports_is_a_dependency(stage: str) -> None:
    listed = [ROOT / dep for dep in dependencies(stage)]
    missing = {path for path in code(stage) if not any(path.is_relative_to(dep) for dep in listed)}
    assert {str(path.relative_to(ROOT)) for path in missing} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_every_dependency_holds_something_that_the_stage_imports(stage: str) -> None:
    imported = code(stage)
    idle = [dep for dep in dependencies(stage) if not any(path.is_relative_to(ROOT / dep) for path in imported)]
    assert idle == []


def test_what_a_running_stage_watches_of_its_code_is_what_dvc_watches(workspace: Path) -> None:
    """As the door starts it: what only the check of the whole params.yaml imports is no code of the stage."""
    script = (
        "import tasks.__main__ as d; d._check_params('train'); import tasks.train; from tasks.harness import code; "
    )
    words = (sys.executable, "-c", f"{script}print(*code.loaded(), sep='\\n')")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    loaded = {Path(line) for line in answer.stdout.splitlines() if not line.endswith("__init__.py")}
    assert loaded == {path for path in code("train") if path in loaded}
    assert ROOT / "tasks/params/train.py" in loaded
    assert not {ROOT / f"tasks/params/{section}.py" for section in NO_STAGE} & loaded


@pytest.mark.parametrize("stage", STAGES)
def test_a_page_of_the_server_makes_no_stage_stale(stage: str) -> None:
    assert {"serving", "tasks", "flows"}.isdisjoint(PIPELINE[stage]["deps"])


@pytest.mark.parametrize("section", NO_STAGE)
def test_a_section_that_no_stage_depends_on_makes_no_stage_stale(section: str) -> None:
    for stage in STAGES:
        assert not any((ROOT / f"tasks/params/{section}.py").is_relative_to(ROOT / dep) for dep in dependencies(stage))


def test_every_other_dep_is_an_output_of_an_earlier_stage() -> None:
    written: set[str] = set()
    for name, stage in PIPELINE.items():
        assert set(stage["deps"]) - set(dependencies(name)) <= written | {"${download.path}"}
        for kind in ("outs", "metrics", "plots"):
            written.update(next(iter(out)) if isinstance(out, dict) else out for out in stage.get(kind, []))


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_an_orchestrator(stage: str) -> None:
    for path in code(stage):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("prefect", "dvc")], path


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_watches_what_dvc_takes_for_its_inputs(
    stage: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: dict[str, Any] = {}

    def instead(name: str, **given: Any) -> None:
        watched.update(given, name=name)
        raise InterruptedError  # that is all

    monkeypatch.setattr(import_module(f"tasks.{stage}"), "stage", instead)
    with pytest.raises(InterruptedError):
        import_module(f"tasks.{stage}").main()
    assert watched["name"] == stage
    others = set(PIPELINE[stage]["deps"]) - set(dependencies(stage))
    assert set(watched.get("reads", ())) == {dep.replace("${download.path}", "data/inbox") for dep in others}
    assert set(watched["params"]) == set(PIPELINE[stage]["params"])


class Recorder:
    """Stands for a part of the parameters and notes which values are read."""

    def __init__(self, part: Any, name: str, read: set[str]) -> None:
        self._part, self._name, self._read = part, name, read

    def __getattr__(self, key: str) -> Any:
        value = getattr(self._part, key)
        name = f"{self._name}.{key}".lstrip(".")
        if isinstance(value, Section):
            return Recorder(value, name, self._read)
        if key == "model_dump":
            self._read.update(f"{self._name}.{field}" for field in type(self._part).model_fields)
        else:
            self._read.add(name)
        return value


LOAD = section.load


def recorded(kind: type[Section], read: set[str]) -> Recorder:
    return Recorder(LOAD(kind), kind.__name__.lower(), read)


@pytest.fixture(scope="module")
def read_by_stage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Run the stages on images with a CSV file and note what each reads of params.yaml; and those that fetch."""
    found: dict[str, set[str]] = {stage: set() for stage in STAGES}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("stages"))
        write_inbox()
        for dataset, stages in (("digits", STAGES[:2]), ("csv", STAGES)):
            write_params(
                download={"dataset": dataset},
                transform={"on_bad_image": "skip", "max_bad_fraction": 0.5},
                train={"normalize": "fitted"},
                quantize={"to": ["int8"], "max_accuracy_drop": 1.0, "max_changed_labels": 1.0},
            )
            for stage in stages:
                with pytest.MonkeyPatch.context() as instead:
                    instead.setattr(section, "load", lambda kind, stage=stage: recorded(kind, found[stage]))
                    import_module(f"tasks.{stage}").main()
    return found


def write_inbox() -> None:
    """Write 60 images of two classes and their CSV file to data/inbox, and one that cannot be read."""
    Path("data/inbox").mkdir(parents=True)
    rows = ["image,label"]
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(f"data/inbox/{number}.png")
        rows.append(f"{number}.png,{number % 2}")
    Path("data/inbox/broken.png").write_text("no image")
    Path("data/inbox/labels.csv").write_text("\n".join([*rows, "broken.png,1"]))


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_all_that_the_stage_reads(read_by_stage: dict[str, set[str]], stage: str) -> None:
    listed = PIPELINE[stage]["params"]
    own = {f"{stage}.{key}" for key in Params.model_fields[stage].annotation.model_fields}  # type: ignore[union-attr]
    assert stage in listed
    read = {".".join(name.split(".")[:2]) for name in read_by_stage[stage]}
    assert read - own == set(listed) - {stage}
    assert own <= read, "a parameter that its stage does not read"


def test_the_download_cache_is_outside_dvc() -> None:
    ignored = (ROOT / ".dvcignore").read_text().split()
    assert f"/{fetch.CACHE.parts[0]}/" in ignored
