"""The walls between the rooms: what a module may import, and that importing one does nothing but define."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tasks.__main__ import ON_REQUEST, STAGES
from tests.support.params import ROOT

PACKAGES = ("flows", "serving", "tasks")


def modules(*packages: str) -> list[str]:
    paths = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)


def imported(module: str) -> Iterator[str]:
    """Yield the names that a module imports, inside functions too."""
    path = ROOT.joinpath(*module.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_an_init_holds_a_docstring_and_nothing_else() -> None:
    words = ("git", "ls-files", "-co", "--exclude-standard", "*__init__.py")
    inits = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert inits.stdout
    for name in inits.stdout.splitlines():
        tree = ast.parse((ROOT / name).read_text())
        assert len(tree.body) == 1, name
        assert ast.get_docstring(tree), name


STATE = """
import gc, json, logging, os, signal, sys, threading, warnings
from contextlib import suppress
from importlib import import_module
def state():
    return {
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": dict(os.environ),
        "arguments": list(sys.argv),
        "garbage collector": gc.isenabled(),
        "threads": threading.active_count(),
        "folder": os.getcwd(),
        "files": sorted(os.listdir(".")),
        "warnings": list(warnings.filters),
        "loggers": {
            name: (logger.level, list(logger.handlers), list(logger.filters))
            for name in ("root", "pooch", "prefect.flow_runs", "prefect.task_runs")
            for logger in [logging.getLogger(name)]
        },
    }
for name in json.loads(sys.argv[1]):
    with suppress(ImportError):  # it is a name in a module
        import_module(name)
logging.root.handlers.clear()  # where one is, of Prefect's, another module can add none
before = state()
for name in json.loads(sys.argv[2]):
    import_module(name)
    after = state()
    if after != before:
        sys.exit(f"{name}: " + str({key: (before[key], after[key]) for key in after if after[key] != before[key]}))
"""


def test_importing_a_module_has_no_side_effect(tmp_path: Path) -> None:
    # In an empty folder, where there is no params.yaml that one could read.
    ours = modules(*PACKAGES)
    # Other people's modules may have side effects, and Prefect sets itself up when the first flow is defined.
    theirs = {name for module in ours for name in imported(module) if name.split(".")[0] not in PACKAGES}
    words = (sys.executable, "-c", STATE, json.dumps([*sorted(theirs), "prefect.main"]), json.dumps(ours))
    answer = subprocess.run(
        words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize(
    ("importer", "never"),
    [
        ("serving", ("tasks", "flows")),
        ("tasks", ("flows",)),
        (
            "tasks.harness",
            tuple(name for name in modules("tasks") if name != "tasks" and not f"{name}.".startswith("tasks.harness.")),
        ),
        ("tasks.networks", ("tasks.harness", "tasks.model", "tasks.params", "numpy", "pydantic")),
        ("tasks.params", ("tasks.model", "tasks.training", "torch")),
    ],
)
def test_arrows_point_one_way(importer: str, never: tuple[str, ...]) -> None:
    rooms = modules(importer.replace(".", "/"))
    assert rooms
    for module in rooms:
        crossed = [name for name in imported(module) if any(f"{name}.".startswith(f"{wall}.") for wall in never)]
        assert not crossed, module


def test_no_module_imports_a_stage() -> None:
    """Neither another stage nor what they are made of; the door imports one, by its name."""
    stages = {f"tasks.{stage}" for stage in (*STAGES, *ON_REQUEST)}
    for module in modules(*PACKAGES):
        assert not stages & set(imported(module)), module


def requirements(name: str) -> Iterator[str]:
    """Yield the distributions that `name` needs here, itself included."""
    open_, seen = [name], set()
    while open_:
        if (current := open_.pop()) in seen:
            continue
        seen.add(current)
        yield current
        needed = map(Requirement, distribution(current).requires or ())
        open_ += [need.name for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]


def test_networks_need_torch_and_nothing_else(tmp_path: Path) -> None:
    # In an environment that holds torch and what torch itself requires.
    wanted = {name.lower().replace("_", "-") for name in requirements("torch")}
    site = Path(str(distribution("torch").locate_file("")))
    for package, owners in packages_distributions().items():
        if {owner.lower().replace("_", "-") for owner in owners} & wanted:
            for place in (site / package, site / f"{package}.py"):
                if place.exists():
                    (tmp_path / place.name).symlink_to(place)
    script = """
import importlib.util, torch
print([name for name in ("dvc", "numpy", "prefect", "pydantic", "ruamel") if importlib.util.find_spec(name)])
from tasks.networks.mlp import NeuralNetwork
from tasks.networks.table import NETWORKS
for name, options in (("mlp", {"final_relu": True}), ("cnn", {"channels": [4, 8]})):
    print(tuple(NETWORKS[name]((28, 28, 1), 10, **options)(torch.zeros(2, 1, 28, 28)).shape))
"""
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    words = (sys.executable, "-S", "-P", "-W", "ignore", "-c", script)
    answer = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    there, *shapes = answer.stdout.splitlines()
    assert there == "[]"
    assert shapes
    assert set(shapes) == {"(2, 10)"}
