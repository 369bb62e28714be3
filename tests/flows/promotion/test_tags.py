"""What is in service as tags of git: DVC brings that model by them, and none of them leads to another one."""

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from gto import api as gto

from flows.promotion import history, shared, tags
from flows.promotion.history import Entry
from flows.runtime import branches
from tests.flows.promotion.conftest import name_remote
from tests.flows.promotion.test_shared import following
from tests.support.params import write_params
from tests.support.project import Command

MODEL, ROOT = Path("models/model.onnx"), Path("models/registry")
DVC_YAML = f"""
stages: {{export: {{cmd: exit 1, outs: [{MODEL}]}}}}
artifacts: {{classifier-onnx: {{path: {MODEL}, type: model}}}}
"""


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in the working directory that tags what goes into service, with a remote of git and one of DVC."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "ana")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ana@example.com")
    (workspace / "storage").mkdir()
    git("init", "-q", "--bare", "remote.git")
    (project := workspace / "the project").mkdir()
    monkeypatch.chdir(project)
    write_params(retraining={"git_tags": True})
    Path("dvc.yaml").write_text(DVC_YAML)
    Path(".gitignore").write_text("models/\n")
    name_remote(project, str(workspace / "storage"))
    git("init", "-q")
    git("remote", "add", "origin", str(workspace / "remote.git"))
    MODEL.parent.mkdir()
    return project


def git(*words: str) -> str:
    return subprocess.run(("git", *words), capture_output=True, text=True, check=True).stdout


def commit(note: str) -> str:
    """Commit the dvc.lock of a run that made the model of `following` with the same note, and return the commit."""
    model = f"model {note}".encode()
    out = {"path": str(MODEL), "hash": "md5", "md5": hashlib.md5(model).hexdigest(), "size": len(model)}
    lock = {"schema": "2.0", "stages": {"export": {"cmd": "exit 1", "outs": [out]}}}
    Path("dvc.lock").write_text(json.dumps(lock))
    git("add", "-A")
    git("commit", "-qm", note)
    return git("rev-parse", "HEAD").strip()


def put_into_service(note: str, **changes: Any) -> Entry:
    entry = replace(following(ROOT, note), **changes)
    shared.append(ROOT, entry)
    return entry


def known(place: str = ".") -> list[str]:
    return git("-C", place, "tag", "--sort=taggerdate").split()


def in_service() -> str:
    """Return the version that is in service, as GTO reads the dates of the tags: gto show --sort timestamp."""
    return str(gto.show(".")["classifier-onnx"]["stage"]["prod"])


def test_dvc_brings_the_model_in_service_and_any_that_was(project: Path, tmp_path: Path, command: Command) -> None:
    commit("1")
    put_into_service("1")
    assert tags.mirror(ROOT) == "tagged classifier-onnx@v1.0.0 and classifier-onnx#prod#1"
    assert tags.mirror(ROOT) is None
    commit("2")
    put_into_service("2", time="2026-11-25T03:41:00+00:00")
    assert tags.mirror(ROOT) == "tagged classifier-onnx@v2.0.0 and classifier-onnx#prod#2"
    git("push", "-q", "origin", "HEAD:refs/heads/main")
    git("-C", str(tmp_path / "remote.git"), "symbolic-ref", "HEAD", "refs/heads/main")

    def get(*which: str) -> str:
        url = str(tmp_path / "remote.git")
        command("dvc", "artifacts", "get", url, "classifier-onnx", *which, "-o", "got", "--force", cwd=tmp_path)
        return (tmp_path / "got").read_text()

    assert get("--stage", "prod") == get("--rev", "v2.0.0") == get() == "model 2"
    assert get("--rev", "v1.0.0") == "model 1"
    back = put_into_service("1", action="rolled back", time="2026-11-26T03:41:00+00:00")
    assert tags.mirror(ROOT) == "tagged classifier-onnx#prod#3"
    assert get("--stage", "prod") == "model 1"
    assert known() == known(str(tmp_path / "remote.git"))
    found = git("for-each-ref", "--format=%(taggername) %(taggerdate:unix) %(contents)", "refs/tags/*prod#3")
    assert found == f"ana@registry {datetime.fromisoformat(back.time).timestamp():.0f} {back.line}\n"
    assert in_service() == "v1.0.0"


def test_a_clock_that_is_late_makes_no_tag_that_is_earlier_than_the_one_before_it(project: Path) -> None:
    for number, time in enumerate(("2026-11-25T03:41:00", "2026-11-25T03:41:00", "2020-01-01T00:00:00"), start=1):
        commit(str(number))
        put_into_service(str(number), time=f"{time}+00:00")
        tags.mirror(ROOT)
    assert [tag for tag in known() if "prod" in tag] == [f"classifier-onnx#prod#{number}" for number in (1, 2, 3)]
    assert in_service() == "v3.0.0"


def test_the_model_of_a_night_is_at_its_branch_also_in_a_project_in_a_folder_of_its_repository(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := project / "deep/project").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", ".dvc"):
        shutil.move(project / name, folder)
    monkeypatch.chdir(folder)
    MODEL.parent.mkdir()
    commit("another")
    entry = put_into_service("1")
    made = commit("1")
    git("branch", f"{branches.PREFIX}20261127T030000Z-{entry.version}")
    git("reset", "-q", "--hard", "HEAD~1")
    assert tags.mirror(ROOT) == "tagged deep/project=classifier-onnx@v1.0.0 and deep/project=classifier-onnx#prod#1"
    assert {git("rev-parse", f"{tag}^{{commit}}").strip() for tag in known()} == {made}


def test_no_tag_leads_to_another_model(project: Path) -> None:
    commit("another")
    put_into_service("1")
    said = "not tagged, and --stage prod of dvc artifacts get may be an earlier model: "
    nowhere = f"{said}neither HEAD nor a branch of a night has {history.read(ROOT)[0].version} in its dvc.lock"
    assert str(tags.mirror(ROOT)).startswith(nowhere)
    for lock in ("", "no: lock", "[", "stages: {export: {outs: [{path: models/model.onnx}]}}", "\udc80"):
        Path("dvc.lock").write_text(lock, errors="surrogateescape")
        git("commit", "-qam", "a lock that is none")
        assert str(tags.mirror(ROOT)).startswith(nowhere), lock
    assert known() == []
    git("tag", "-a", "-m", "by hand", "classifier-onnx@v1.0.0")
    commit("1")
    taken = "the tag classifier-onnx@v1.0.0 is there already, on a commit whose dvc.lock has another models/model.onnx"
    assert tags.mirror(ROOT) == f"{said}{taken}"
    assert known() == ["classifier-onnx@v1.0.0"]
    git("tag", "-d", "classifier-onnx@v1.0.0")
    assert str(tags.mirror(ROOT)).startswith("tagged")


def test_two_machines_make_the_same_tags(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit("1")
    put_into_service("1")
    git("push", "-q", "origin", "HEAD:refs/heads/main")
    git("-C", str(tmp_path / "remote.git"), "symbolic-ref", "HEAD", "refs/heads/main")
    git("clone", "-q", str(tmp_path / "remote.git"), str(tmp_path / "other"))
    tags.mirror(ROOT)
    monkeypatch.chdir(tmp_path / "other")
    git("commit", "-q", "--allow-empty", "-m", "the same model, at another commit")
    shared.read(ROOT)
    assert tags.mirror(ROOT) is None
    assert known() == known(str(project))
    git("update-ref", "-d", "refs/tags/classifier-onnx#prod#1")
    git("commit", "-q", "--amend", "--allow-empty", "-m", "once more")
    assert tags.mirror(ROOT) is None
    assert known() == known(str(project))


def test_a_push_that_failed_is_made_up_for(project: Path, tmp_path: Path) -> None:
    commit("1")
    put_into_service("1")
    (tmp_path / "remote.git").rename(tmp_path / "away")
    assert "git ls-remote failed" in str(tags.mirror(ROOT))
    (tmp_path / "away").rename(tmp_path / "remote.git")
    (hook := tmp_path / "remote.git/hooks/pre-receive").write_text("#!/bin/sh\necho full >&2\nexit 1\n")
    hook.chmod(0o755)
    assert "full" in str(tags.mirror(ROOT))
    assert len(known()) == 2
    hook.unlink()
    assert tags.mirror(ROOT) == "tagged classifier-onnx@v1.0.0 and classifier-onnx#prod#1"
    assert known() == known(str(tmp_path / "remote.git"))


def test_a_model_that_dvcs_remote_does_not_take_is_not_tagged(project: Path, tmp_path: Path) -> None:
    commit("1")
    put_into_service("1")
    (tmp_path / "storage/files").touch()  # where DVC would have a folder
    assert "does not take the model as DVC keeps it" in str(tags.mirror(ROOT))
    assert known() == []


def test_unless_it_is_asked_for_nothing_is_tagged(project: Path) -> None:
    assert tags.mirror(ROOT) is None, "nothing is in service yet"
    commit("1")
    put_into_service("1")
    write_params()
    assert tags.mirror(ROOT) is None
    assert known() == []
    Path("params.yaml").write_text("retraining: {}")
    assert "not tagged" in str(tags.mirror(ROOT))


def test_without_remotes_the_tags_are_here(project: Path) -> None:
    Path(".dvc/config").write_text("")
    git("remote", "remove", "origin")
    commit("1")
    put_into_service("1")
    git("config", "tag.gpgSign", "true")
    assert str(tags.mirror(ROOT)).startswith("tagged")
    assert len(known()) == 2
