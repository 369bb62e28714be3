"""A model's way into service and out of it, from a terminal: on digits, with a better and an equal model."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.project import QUICK_DIGITS, Command, change, copy_project

TRAINING = ("python", "-m", "flows", "training")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A copy of the project whose model in service was trained for an epoch, with a better one in models/."""
    project = copy_project(tmp_path_factory.mktemp("promotion") / "the project", [*QUICK_DIGITS, "train.epochs=1"])
    change(project, "retraining.min_accuracy=null")
    command(*TRAINING, cwd=project)
    command("python", "-m", "flows", "promote", cwd=project)
    command(*TRAINING, "-S", "train.epochs=30", cwd=project)
    return project


def test_what_goes_into_service_is_better_and_comes_out_of_it_again(project: Path, command: Command) -> None:
    def flows(*words: str, check: bool = True) -> str:
        return command("python", "-m", "flows", *words, cwd=project, check=check).stdout

    before = command("git", "status", "--porcelain", cwd=project).stdout
    printed = flows("promote", "--reason", "thirty epochs")
    assert re.search(
        r"^quality    passed: accuracy 0.9\d+, gain 0.\d+, p \S+, better \d+,\s+worse\s+\d+$", printed, re.MULTILINE
    )
    assert re.search(
        r"^#2    .* -> .{7}  promoted  \+\d+\.\d\d pt \(p = \S+\)  by .*: thirty epochs$", printed, re.MULTILINE
    )

    command(*TRAINING, "-S", "train.seed=1", cwd=project)
    refused = command("python", "-m", "flows", "promote", cwd=project, check=False)
    assert refused.returncode == 1
    assert "promote: Refused: quality failed" in refused.stdout
    assert "not shown to be better than the champion" in " ".join(flows("why").split())

    flows("rollback", "--reason", "to see that it works")
    lines = flows("history").splitlines()
    assert re.findall("  (promoted|rolled back)  ", "\n".join(lines)) == ["promoted", "promoted", "rolled back"]
    registry = project / "models/registry"
    pointer = json.loads((registry / "champion.json").read_text())
    assert pointer["number"] == 3

    # What is in service answers with no more than is installed where it is served; git sees nothing of the registry.
    served = command(
        "python",
        "-m",
        "serving.predict",
        "--model",
        str(registry / pointer["path"]),
        "docs/ankle-boot.png",
        cwd=project,
    )
    assert "docs/ankle-boot.png: " in served.stdout
    assert command("git", "status", "--porcelain", cwd=project).stdout == before
    flows("rollback", "--reason", "on", "--to", lines[1].split(" -> ")[1][:7])
    assert json.loads((registry / "champion.json").read_text())["number"] == 4


def test_a_fresh_clone_pulls_what_is_in_service(project: Path, tmp_path: Path, command: Command) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    clone = copy_project(tmp_path / "clone")
    for place in (project, clone):
        command("dvc", "remote", "add", "--local", "-d", "storage", str(storage), cwd=place)
    try:
        # No model goes into service, as this one is there already; the remote, which is new, gets all there is.
        command("python", "-m", "flows", "promote", "--version", pointed(project)["sha256"], cwd=project)
    finally:
        command("dvc", "remote", "remove", "--local", "storage", cwd=project)
    printed = command("python", "-m", "flows", "pull_champion", cwd=clone).stdout
    assert f"\nmodels/registry/{pointed(project)['path']} is in service:\n#" in printed
    assert pointed(clone) == pointed(project)
    history = [command("python", "-m", "flows", "history", cwd=place).stdout for place in (project, clone)]
    assert history[0] == history[1]
    before = sorted(path for path in (storage / "registry").rglob("*"))
    command("dvc", "gc", "--workspace", "--cloud", "--force", cwd=clone)
    assert sorted(path for path in (storage / "registry").rglob("*")) == before, "DVC leaves it alone there, too"


def pointed(project: Path) -> dict[str, str]:
    pointer: dict[str, str] = json.loads((project / "models/registry/champion.json").read_text())
    return pointer


def test_dvc_leaves_the_registry_alone(project: Path, command: Command) -> None:
    registry = project / "models/registry"
    before = sorted(path.relative_to(registry) for path in registry.rglob("*"))
    shutil.rmtree(project / ".dvc/cache")
    command("dvc", "repro", "--force", "--single-item", "train", "export", cwd=project)  # those that write to models/
    assert sorted(path.relative_to(registry) for path in registry.rglob("*")) == before
