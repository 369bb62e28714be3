"""dvc.yaml against the code: what each stage imports, and which parameters it reads."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tasks import download, params, stages
from tasks.params import Params
from tests.conftest import ROOT, write_params

STAGES = ["download", "transform", "train", "evaluate", "export"]
PIPELINE: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())


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
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts)]  # its own packages
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return {file for name in names for file in modules(name)}


def modules(name: str) -> Iterator[Path]:
    """Yield the files of the project that importing `name` runs: its packages' and its own."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:end])
        yield from (file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file())


def test_stages_modules_params_and_tasks_have_the_same_names() -> None:
    assert list(PIPELINE["stages"]) == STAGES
    assert [name for name in Params.model_fields if name != "flow"] == STAGES
    assert list(params.TimeLimits.model_fields) == STAGES
    for name in STAGES:
        assert PIPELINE["stages"][name]["cmd"] == f"exec python -m tasks.{name}"
        assert import_module(f"tasks.{name}").main
        assert getattr(stages, name).name == name


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_all_modules_that_the_stage_imports(stage: str) -> None:
    listed = {dep for dep in PIPELINE["stages"][stage]["deps"] if dep.endswith(".py")}
    assert listed == {str(path.relative_to(ROOT)) for path in imports(ROOT / "tasks" / f"{stage}.py")}


def test_every_other_dep_is_an_output_of_an_earlier_stage() -> None:
    written: set[str] = set()
    for stage in PIPELINE["stages"].values():
        assert {dep for dep in stage["deps"] if not dep.endswith(".py")} <= written | {"${download.path}"}
        for kind in ("outs", "metrics", "plots"):
            written.update(next(iter(out)) if isinstance(out, dict) else out for out in stage.get(kind, []))


def test_no_stage_imports_an_orchestrator() -> None:
    for stage in STAGES:
        for path in imports(ROOT / "tasks" / f"{stage}.py"):
            assert "import prefect" not in path.read_text()
            assert "from prefect" not in path.read_text()
            assert "import dvc" not in path.read_text()


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
    deps = {dep.replace("${download.path}", "data/inbox") for dep in PIPELINE["stages"][stage]["deps"]}
    assert set(watched.get("reads", ())) == {dep for dep in deps if not dep.endswith(".py")}
    assert set(watched["params"]) == set(PIPELINE["stages"][stage]["params"])


class Recorder:
    """Stands for a part of the parameters and notes which values are read."""

    def __init__(self, part: Any, name: str, read: set[str]) -> None:
        self._part, self._name, self._read = part, name, read

    def __getattr__(self, key: str) -> Any:
        value = getattr(self._part, key)
        name = f"{self._name}.{key}".lstrip(".")
        if isinstance(value, params.Section):
            return Recorder(value, name, self._read)
        if key == "model_dump":
            self._read.update(f"{self._name}.{field}" for field in type(self._part).model_fields)
        else:
            self._read.add(name)
        return value


@pytest.fixture(scope="module")
def read_by_stage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Run the five stages on images with a CSV file and note what each reads of params.yaml; and those that fetch."""
    found: dict[str, set[str]] = {stage: set() for stage in STAGES}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("stages"))
        write_inbox()
        for dataset, stages in (("digits", STAGES[:2]), ("csv", STAGES)):
            whole = write_params(
                download={"dataset": dataset},
                transform={"on_bad_image": "skip", "max_bad_fraction": 0.5},
                train={"normalize": "fitted"},
            )
            for stage in stages:
                with pytest.MonkeyPatch.context() as instead:
                    instead.setattr(params, "load", lambda stage=stage, whole=whole: Recorder(whole, "", found[stage]))
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
    listed = PIPELINE["stages"][stage]["params"]
    own = {f"{stage}.{key}" for key in Params.model_fields[stage].annotation.model_fields}  # type: ignore[union-attr]
    assert stage in listed
    read = {".".join(name.split(".")[:2]) for name in read_by_stage[stage]}
    assert read - own == set(listed) - {stage}
    assert own <= read, "a parameter that its stage does not read"


def test_the_download_cache_is_outside_dvc() -> None:
    ignored = (ROOT / ".dvcignore").read_text().split()
    assert f"{download.CACHE.parts[0]}/" in ignored
