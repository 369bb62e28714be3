"""The flow on a schedule: what its form allows, what a choice in it changes, and what comes of the model."""

import logging
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from prefect.client.schemas.objects import State

from flows import overrides, recipes, retraining, why
from flows.promote import Refused, Waits
from flows.promotion import arrivals, history, judgement, tags, waiting
from flows.promotion.judgement import Judgement
from flows.report import nights
from flows.runtime import branches, deployments, form, labels, night, project_lock
from flows.runtime.project_lock import ProjectLocked
from tasks.data.datasets import DATASETS
from tasks.dvc import StageFailed, StageRun, StageTimedOut
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.params import whole
from tasks.prepared import Card, Split
from tests.flows.promotion.conftest import name_remote
from tests.support.disk import mounted
from tests.support.project import QUICK_DIGITS, copy_project

MODEL = "7c1e" * 16
ENTRY = SimpleNamespace(line="#2 promoted")
NOT_TRAINED = "not trained, because it is not committed: params.yaml"
UNSEEN = Verdict("arrivals", "not run", ["no model is in service yet"])


@pytest.fixture(autouse=True)
def tagged(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """How often the run was tagged."""
    calls: list[bool] = []
    monkeypatch.setattr(labels, "tag", lambda: calls.append(True))
    monkeypatch.setattr(retraining, "get_run_logger", lambda: logging.getLogger("test"))
    return calls


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Judgement, Path]]:
    """What verdicts would be shown in Prefect's UI."""
    verdicts: list[tuple[Judgement, Path]] = []
    monkeypatch.setattr(nights, "publish", lambda judged, page: verdicts.append((judged, page)))
    return verdicts


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's tree, the working directory, with edits that are not committed."""
    tree = copy_project(tmp_path / "Jürgen's project, #1", QUICK_DIGITS)
    monkeypatch.chdir(tree)
    for name in ("DATA_MIRROR", "REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    overrides.write(["train.epochs=9000"])
    return tree


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each training found where it ran, instead of a training."""
    found: list[dict[str, Any]] = []

    def prepare(changes: Sequence[str] = ()) -> list[StageRun]:
        overrides.write(list(changes))
        return []

    def learn(prepared: list[StageRun], started: datetime) -> None:
        params = whole.load()
        found.append({"epochs": params.train.epochs, "dataset": params.download.dataset, "folder": Path.cwd()})
        Path("dvc.lock").write_text(f"trained {len(found)}\n")

    monkeypatch.setattr(retraining, "prepare", prepare)
    monkeypatch.setattr(retraining, "learn", learn)
    monkeypatch.setattr(arrivals, "look", lambda *_: UNSEEN)
    images = np.zeros((1, 1, 1, 1), np.uint8)
    monkeypatch.setattr(Split, "read", lambda _: Split(images, np.zeros(1, np.int64)))
    monkeypatch.setattr(retraining, "of_models", lambda: SimpleNamespace(digest=MODEL, version=MODEL[:7]))
    return found


def promoted(monkeypatch: pytest.MonkeyPatch, watch: Callable[..., Any], entry: object = ENTRY) -> None:
    """Have `watch` called in the place of a promotion, of which `entry` comes."""

    def promote(*arguments: Any, **options: Any) -> object:
        watch(*arguments, **options)
        return entry

    monkeypatch.setattr(retraining, "promote", promote)


def run(**form: Any) -> State[Any]:
    return retraining.retraining.fn(**form)


def git(*words: str) -> str:
    return subprocess.run(("git", *words), capture_output=True, text=True, check=True).stdout


def test_the_form_offers_every_recipe_and_the_bounds_of_params_and_shows_what_is_committed(tree: Path) -> None:
    schema = retraining.retraining.parameters.properties
    assert [(name, field["type"]) for name, field in schema.items()] == [
        ("recipe", "string"),
        ("path", "string"),
        ("image_size", "array"),
        ("epochs", "integer"),
        ("batch_size", "integer"),
        ("learning_rate", "number"),
        ("seed", "integer"),
    ]
    assert set(DATASETS) < set(schema["recipe"]["enum"])
    assert (schema["epochs"]["minimum"], schema["epochs"]["maximum"]) == (1, 10_000)
    assert all(field["description"] for field in schema.values())
    filled = form.shown()
    assert filled.keys() == schema.keys() - {"recipe"}
    assert (filled["epochs"], filled["image_size"]) == (60, [64, 64]), "as committed: the tree has 9000"


def test_a_run_that_is_skipped_names_the_run_at_work_and_has_its_tags(
    checkout: Path, tagged: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(path: Path) -> NoReturn:
        raise ProjectLocked("the run with pid 7")

    monkeypatch.setattr(project_lock, "hold", hold)
    state = run()
    assert (state.name, state.message) == ("Skipped", "Skipped: the run with pid 7 is at work")
    assert not (checkout / "models/registry").exists(), "a verdict would hide that of the night at work"
    assert tagged == [True]


def test_a_night_trains_what_was_committed_in_a_checkout_of_its_own(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    promoted(monkeypatch, lambda root, params, candidate, by, remarks, arrivals, wait: said.append((root, remarks)))
    before = git("status", "--porcelain")
    state = run()
    assert state.name == "Promoted"
    ((root, remarks),) = said
    assert root == tree / "models/registry"
    assert remarks == ["not trained, because it is not committed: params.yaml"]
    (found,) = trained
    assert (found["epochs"], found["folder"]) == (60, tree / night.CHECKOUT)
    assert Path.cwd() == tree
    assert not (tree / night.CHECKOUT).exists()
    assert git("status", "--porcelain") == before == " M params.yaml\n"
    assert whole.load().train.epochs == 9000
    branch = git("for-each-ref", "--format=%(refname:short)", "refs/heads/retraining").strip()
    assert str(state.message).endswith(f"; branch {branch}")
    assert git("show", f"{branch}:dvc.lock") == "trained 1\n"
    assert git("log", "-1", "--format=%s", branch) == f"Promoted: model {MODEL[:7]} of a night [skip ci]\n"


def test_images_that_the_night_takes_from_the_tree_are_no_edits_that_it_leaves_out(tree: Path) -> None:
    Path("data/inbox.dvc").write_text("as dvc add writes it")
    git("add", "--force", "data/inbox.dvc")
    assert night.edits() == "not trained, because it is not committed: params.yaml"


def test_what_the_form_says_is_of_that_run_alone(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(monkeypatch, lambda *_, **__: None)
    run(epochs=3)
    run(recipe="mnist", epochs=4)
    run(recipe="mnist", **form.shown())  # nobody has touched the fields, so that the recipe has its way
    run()
    assert [(found["epochs"], found["dataset"]) for found in trained] == [
        (3, "digits"),
        (4, "mnist"),
        (recipes.values("mnist")["train.epochs"], "mnist"),
        (60, "digits"),
    ]


def test_the_form_has_images_of_ones_own_and_their_size(
    tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def prepare(changes: list[str]) -> NoReturn:
        overrides.write(changes)
        seen.append((whole.load().download, whole.load().transform.image_size))
        raise StageError("there is nothing of that name")

    monkeypatch.setattr(retraining, "prepare", prepare)
    images = str(tmp_path / "my images: [a, #b]")
    run(recipe="folder", path=images, image_size=[28, 32])
    ((download, size),) = seen
    assert (download.dataset, download.path, size) == ("folder", images, (28, 32))


def test_a_model_that_passes_waits_for_approval_and_once(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides.write(["retraining.approval=true"])
    git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-qam", "wait for me")
    waiting_ones: list[Any] = []

    def promote(*_: Any, wait: bool, **__: Any) -> NoReturn:
        assert wait
        waiting_ones.append(SimpleNamespace(model=MODEL, replaces=None, time="2026-11-27T03:41:00+00:00"))
        raise Waits("7c1e7c1 waits: make promote VERSION=7c1e7c1")

    monkeypatch.setattr(retraining, "promote", promote)
    monkeypatch.setattr(waiting, "read", lambda _: waiting_ones)
    state = run()
    assert (state.name, state.type) == ("Waiting", "COMPLETED")
    said = "7c1e7c1 waits: make promote VERSION=7c1e7c1, or the deployment promotion; branch"
    assert str(state.message).startswith(said)
    state = run()
    assert state.name == "Nothing new"
    assert state.message == f"Nothing new: {MODEL[:7]} waits for approval since 2026-11-27T03:41 UTC"
    assert len(waiting_ones) == 1


@pytest.mark.parametrize(
    ("came", "name", "message"),
    [
        (ENTRY, "Promoted", "#2 promoted"),
        (None, "Nothing new", "Nothing new: 7c1e7c1 is in service"),
        (Refused("worse"), "Refused", "worse"),
    ],
)
def test_a_person_approves_in_the_ui_and_the_model_is_judged_again(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, came: object, name: str, message: str
) -> None:
    asked: list[Any] = []

    def promote(root: Path, params: Any, candidate: Any, reason: str, by: str, remarks: list[str]) -> Any:
        asked.append((root, candidate.version, reason, Path.cwd()))
        if isinstance(came, Refused):
            raise came
        return came

    monkeypatch.setattr(retraining, "find", lambda root, version: version)
    monkeypatch.setattr(retraining, "of_registry", lambda root, entry: SimpleNamespace(version=f"{entry}7c1"))
    monkeypatch.setattr(retraining, "promote", promote)
    state = retraining.promotion.fn(version="7c1e", reason="looked at it")
    assert (state.name, state.message) == (name, message)
    assert asked == [(tree / "models/registry", "7c1e7c1", "looked at it", tree / night.CHECKOUT)]
    schema = retraining.promotion.parameters
    assert schema.required == ["version", "reason"]
    assert schema.properties["version"]["minLength"] == 4


def test_a_run_that_was_overtaken_does_nothing_but_say_so(
    checkout: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    monkeypatch.setattr(retraining, "deployment", SimpleNamespace(id="7"))
    monkeypatch.setattr(retraining, "end_run_with_worker", lambda: began.append("it ends with its worker"))
    monkeypatch.setattr(deployments, "begin", lambda: began.append("what it was is told"))
    monkeypatch.setattr(deployments, "overtaken", lambda: "Superseded by the run of noon")
    state = run()
    assert (state.name, state.type, state.message) == ("Superseded", "COMPLETED", "Superseded by the run of noon")
    assert (trained, began) == ([], ["it ends with its worker", "what it was is told"])


def test_a_refused_model_is_a_state_and_a_branch_and_is_not_judged_again(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise Refused("Refused: quality failed")

    promoted(monkeypatch, refuse)
    state = run()
    assert state.name == "Refused"
    assert str(state.message).startswith("Refused: quality failed; branch retraining/")
    judged = SimpleNamespace(time="2026-11-24T03:41:00+00:00")
    monkeypatch.setattr(judgement, "worse", lambda root, model, *_: judged if model == MODEL else None)
    state = run()
    assert (state.name, state.message) == (
        "Nothing new",
        f"Nothing new: {MODEL[:7]} was judged at 2026-11-24T03:41 UTC and not found good enough",
    )


def test_the_model_in_service_is_nothing_new(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "read", lambda root: [SimpleNamespace(model=MODEL)])
    promoted(monkeypatch, lambda *_, **__: pytest.fail("it was judged"))
    assert run().name == "Nothing new"
    branch = git("for-each-ref", "--format=%(refname:short)", "refs/heads/retraining").split()
    assert [name[-7:] for name in branch] == [MODEL[:7]], "the night that put it there was killed before it had one"
    assert run().name == "Nothing new"
    assert git("for-each-ref", "--format=%(refname:short)", "refs/heads/retraining").split() == branch


def test_a_model_that_was_taken_back_does_not_come_back_by_itself(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        SimpleNamespace(model=model, replaces=replaces, line=f"{model} for {replaces}")
        for model, replaces in (("a", None), (MODEL, "a"), ("a", MODEL))
    ]
    monkeypatch.setattr(history, "read", lambda root: entries)
    promoted(monkeypatch, lambda *_, **__: pytest.fail("it was judged"))
    state = run()
    assert state.name == "Nothing new"
    assert str(state.message).endswith(f"was in service, and does not come back by itself: a for {MODEL}")


def test_a_model_that_somebody_else_has_put_into_service_meanwhile_is_nothing_new(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(monkeypatch, lambda *_, **__: None, entry=None)
    assert run().name == "Nothing new"


@pytest.mark.parametrize(("kind", "name"), [(StageFailed, "Failed"), (StageTimedOut, "TimedOut")])
def test_a_stage_that_fails_leaves_its_log_and_no_checkout(
    kind: type[StageFailed], name: str, tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(changes: list[str]) -> NoReturn:
        raise kind("train: the loss is not finite\nsecond line")

    monkeypatch.setattr(retraining, "prepare", fail)
    state = run()
    message = "train: the loss is not finite\nsecond line\nlog: .cache/retraining/kept/logs/train.log"
    found, page = last_verdict(tree)
    assert (state.type.value, state.name, state.message) == ("FAILED", name, f"{message}\nsee {page}")
    assert caplog.text.count(message) == 1
    assert Path.cwd() == tree
    assert not (tree / night.CHECKOUT).exists()
    assert (found.headline, found.remarks) == (f"{name}: no model was put into service", [NOT_TRAINED])
    assert found.blessing("night").reasons == message.splitlines()
    for text in (why.text(found), page.read_text()):
        assert "the loss is not finite" in text
        assert NOT_TRAINED in text
        assert "test images" not in text, "there were none"


def last_verdict(tree: Path) -> tuple[Judgement, Path]:
    """Return the last verdict and its page."""
    last = judgement.read_last(tree / "models/registry")
    assert last
    return last[0], last[1].with_suffix(".html")


def test_a_failure_after_a_model_was_judged_is_what_is_said_last(
    tree: Path, trained: list[dict[str, Any]], shown: list[tuple[Judgement, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Card, "read", lambda: SimpleNamespace(name="digits", sizes={"test": 359}))

    def fail(*_: Any, **__: Any) -> NoReturn:
        passed = replace(arrivals.blocked(UNSEEN, [], whole.load(), retraining.this_run(), []), model=MODEL)
        judgement.write(tree / "models/registry", passed)
        assert last_verdict(tree)[0].headline == "All three blessings passed"
        raise StageError("the remote gives back other bytes")

    promoted(monkeypatch, fail)
    state = run()
    found, page = last_verdict(tree)
    assert str(state.message) == f"the remote gives back other bytes; see {page}"
    assert found.headline == "Failed: no model was put into service"
    assert shown == [(found, page)]


@pytest.mark.parametrize(
    ("error", "headline", "reason"),
    [
        (KeyboardInterrupt(), "Stopped: no model was put into service", "KeyboardInterrupt"),
        (ZeroDivisionError("by nought"), "Failed: no model was put into service", "ZeroDivisionError: by nought"),
    ],
)
def test_what_ends_a_night_in_any_other_way_is_in_its_verdict(
    error: BaseException, headline: str, reason: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(changes: list[str]) -> NoReturn:
        raise error

    monkeypatch.setattr(retraining, "prepare", end)
    with pytest.raises(type(error)):
        run()
    found, _ = last_verdict(tree)
    assert (found.headline, found.blessing("night").reasons) == (headline, [reason])
    assert (found.dataset, found.limits["rule"], found.remarks) == ("digits", "better", [NOT_TRAINED])


def test_a_night_whose_disk_is_read_only_or_full_fails_in_a_sentence_and_the_next_one_works(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(monkeypatch, lambda *_, **__: None)
    before = git("status", "--porcelain")
    with mounted(tree / ".cache", megabytes=16) as disk:
        for trouble, said in (
            (disk.read_only(), "Read-only file system"),
            (disk.full(), f"the disk is full (0 MB free in {tree}/.cache)"),
        ):
            with trouble:
                state = run()
            assert (state.is_failed(), said in str(state.message)) == (True, True), state.message
        assert run().name == "Promoted"
    assert (len(trained), git("status", "--porcelain")) == (1, before)


def test_images_that_the_checkout_cannot_find_fail_it_in_a_sentence(
    tree: Path, trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "inbox").mkdir()
    overrides.write(["download.dataset=folder", "download.path=../inbox", "train.epochs=1"])
    git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "images elsewhere")
    state = run()
    assert state.is_failed()
    assert str(state.message).startswith(
        f"'../inbox' leads out of the project: retraining needs it from /, as {tmp_path / 'inbox'}"
    )
    assert not trained


def test_arrivals_that_block_are_a_state_and_a_verdict_and_nothing_is_trained(
    tree: Path,
    trained: list[dict[str, Any]],
    shown: list[tuple[Judgement, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = SimpleNamespace(name="digits", sizes={"test": 359})
    monkeypatch.setattr(Card, "read", lambda: card)
    monkeypatch.setattr(arrivals, "look", lambda *_: Verdict("arrivals", "failed", ["all 60 arrivals are labelled 3"]))
    state = run()
    assert (state.name, state.type.value) == ("Blocked", "FAILED")
    assert str(state.message).startswith("Blocked, nothing was trained: all 60 arrivals are labelled 3; see ")
    assert not trained
    last = judgement.read_last(tree / "models/registry")
    assert last
    found, path = last
    assert path.name.endswith("-blocked.json")
    assert shown == [(found, path.with_suffix(".html"))]
    assert found.headline == "Blocked: no model was trained, because of what has arrived"
    assert "all 60 arrivals are labelled 3" in why.text(found)
    assert "all 60 arrivals are labelled 3" in path.with_suffix(".html").read_text()


def test_a_verdict_that_is_damaged_is_none_of_this_night(
    tree: Path, trained: list[dict[str, Any]], shown: list[tuple[Judgement, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree / "models/registry/verdicts"
    folder.mkdir(parents=True)
    (folder / "20261124T034100.000000Z-7c1e7c1.json").write_text("{")
    promoted(monkeypatch, lambda *_, **__: None)
    assert run().name == "Promoted"
    assert shown == []


def test_a_refusal_says_why_and_where_its_page_is(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = SimpleNamespace(by=retraining.this_run(), model=MODEL, reasons=[f"reason {number}" for number in range(5)])
    monkeypatch.setattr(judgement, "read_last", lambda root: (judged, root / "verdict.json"))

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise Refused("Refused: quality failed")

    promoted(monkeypatch, refuse)
    message = str(run().message)
    assert message.startswith("Refused: quality failed; branch retraining/")
    page = tree / "models/registry/verdict.html"
    assert message.endswith(f"; reason 0; reason 1; reason 2 and 2 more; see {page}")


def test_what_has_drifted_is_a_remark_of_the_verdict(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict("arrivals", "passed", ["brightness has drifted"])
    monkeypatch.setattr(arrivals, "look", lambda *_: verdict)
    said: list[Any] = []
    promoted(monkeypatch, lambda *_, remarks, arrivals, **__: said.append((remarks[1:], arrivals)))
    assert run().name == "Promoted"
    assert said == [(["brightness has drifted"], verdict)]


@pytest.mark.parametrize(
    ("recipe", "error", "blocked"),
    [
        ("digits", StageFailed("transform: 3 of 40 images cannot be read"), True),
        ("digits", StageTimedOut("transform: stopped after 3600 s"), False),
        ("digits", StageFailed("transform: killed by SIGKILL"), False),
        ("digits", StageFailed("download: no source delivered"), False),
        ("folder", StageFailed("download: there is no image in data/inbox"), True),
        ("folder", StageError("download.path = 'data/inbox': there is nothing of that name"), True),
    ],
)
def test_data_that_cannot_be_trained_on_block_and_nothing_else_does(
    tree: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, error: Exception, blocked: bool
) -> None:
    def fail(changes: list[str]) -> NoReturn:
        overrides.write(changes)
        raise error

    monkeypatch.setattr(retraining, "prepare", fail)
    state = run(recipe=recipe)
    assert (state.name == "Blocked", state.is_failed()) == (blocked, True)


def test_a_checkout_that_a_killed_night_has_left_is_replaced(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tree / night.CHECKOUT
    left.mkdir(parents=True)
    (left / "half").touch()
    (tree / night.KEPT).mkdir()
    (tree / night.KEPT / "checkpoint").touch()
    kept: list[bool] = []
    promoted(monkeypatch, lambda *_, **__: kept.append(Path(".cache/checkpoint").exists()))
    assert run().name == "Promoted"
    assert kept == [True]
    assert not left.exists()


def test_images_and_weights_of_the_tree_are_linked_and_the_mirror_is_the_same(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("data/inbox/cat").mkdir(parents=True)
    Path("data/inbox/cat/1.png").touch()
    monkeypatch.setenv("DATA_MIRROR", "mirror")
    seen: list[Any] = []

    def prepare(changes: list[str]) -> list[StageRun]:
        overrides.write(changes)
        seen.append((Path("data/inbox/cat/1.png").exists(), os.environ["DATA_MIRROR"]))
        return []

    monkeypatch.setattr(retraining, "prepare", prepare)
    promoted(monkeypatch, lambda *_, **__: None)
    run(recipe="folder")
    assert seen == [(True, str(tree / "mirror"))]
    assert os.environ["DATA_MIRROR"] == "mirror"
    assert "REGISTRY" not in os.environ


def test_a_branch_goes_to_the_remote_and_one_that_did_not_with_the_next_night(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def of(model: str) -> None:
        monkeypatch.setattr(retraining, "of_models", lambda: SimpleNamespace(digest=model * 16, version=model * 2))

    def at_the_remote() -> list[str]:
        return git("-C", str(tmp_path / "remote"), "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split()

    promoted(monkeypatch, lambda *_, **__: None)
    git("init", "-q", "--bare", str(tmp_path / "remote"))
    git("remote", "add", "origin", str(tmp_path / "remote"))
    git("branch", "retraining/of-a-person")
    message = str(run().message)
    branch = message.partition("branch ")[2].partition(";")[0]
    assert message.endswith("; 1 branch pushed to origin")
    assert at_the_remote() == [branch]
    git("push", "-q", "origin", "--delete", branch)  # whoever has merged it

    (tmp_path / "remote").rename(tmp_path / "away")
    of("a3f9")
    state = run()
    assert state.name == "Promoted"
    assert "; not pushed, which the next night tries again: git push failed" in str(state.message)
    (tmp_path / "away").rename(tmp_path / "remote")
    monkeypatch.setattr(judgement, "worse", lambda *_: SimpleNamespace(time="2026-11-24T03:41:00+00:00"))
    state = run()
    assert state.name == "Nothing new"
    assert str(state.message).endswith("; 1 branch pushed to origin")
    assert [name[-7:] for name in at_the_remote()] == ["a3f9a3f"], "what a person has removed stays away"


def test_a_branch_that_the_remote_refuses_keeps_no_other_from_it(tree: Path, tmp_path: Path) -> None:
    git("init", "-q", "--bare", str(tmp_path / "remote"))
    git("remote", "add", "backup", str(tmp_path / "remote"))
    for second in (1, 2):
        git("branch", f"retraining/20261127T03000{second}Z-7c1e7c1")
    (hook := tmp_path / "remote/hooks/update").write_text('#!/bin/sh\n! expr "$1" : ".*01Z" > /dev/null\n')
    hook.chmod(0o755)
    with pytest.raises(StageError, match="hook declined"):
        branches.push(tree)
    hook.unlink()
    assert branches.push(tree) == "1 branch pushed to backup"
    assert branches.push(tree) is None


def test_a_night_tags_what_is_in_service_once_it_has_a_branch(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def branch() -> str:
        return git("-C", str(night.home()), "branch", "--list", "retraining/*").strip()

    promoted(monkeypatch, lambda *_, **__: None)
    monkeypatch.setattr(tags, "mirror", lambda root: f"tagged {branch()}")
    message = str(run().message)
    assert re.search(r"; branch (retraining/\S+); tagged \1$", message)


def test_a_remote_that_is_not_there_fails_the_night_before_it_trains(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    promoted(monkeypatch, lambda *_, **__: None)
    name_remote(tree, "../../storage", "config.local")
    state = run()
    assert state.is_failed()
    said = f"the remote 'storage': there is no folder {tmp_path / 'storage'}; mount it, or make it; see "
    assert str(state.message).startswith(said)
    assert not trained
    (tmp_path / "storage").mkdir()
    assert run().name == "Promoted"


def test_branches_of_refused_nights_are_removed_when_they_are_old_by_a_night_that_has_none_itself(
    tree: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def branch(name: str, subject: str, date: str) -> None:
        tree_, parent = git("rev-parse", "HEAD^{tree}").strip(), git("rev-parse", "HEAD").strip()
        author = {
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@t",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@t",
        }
        words = ("git", "commit-tree", tree_, "-p", parent, "-m", subject)
        env = {**os.environ, **author, "GIT_COMMITTER_DATE": date}
        commit = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.strip()
        git("branch", f"retraining/{name}", commit)

    branch("old", "Refused: model 1", "2020-01-01T00:00:00Z")
    branch("good", "Promoted: model 2", "2020-01-01T00:00:00Z")
    branch("new", "Refused: model 3", "2099-01-01T00:00:00Z")
    git("branch", "mine")
    monkeypatch.setattr(judgement, "worse", lambda *_: SimpleNamespace(time="2026-11-24T03:41:00+00:00"))
    assert run().name == "Nothing new"
    left = git("for-each-ref", "--format=%(refname:short)", "refs/heads/retraining", "refs/heads/mine").split()
    assert left == ["mine", "retraining/good", "retraining/new"]


def test_names_in_the_ui_are_those_of_the_tree(tree: Path, tmp_path: Path) -> None:
    name = labels.checkout()
    (tree / ".cache").symlink_to(tmp_path)  # on a larger disk, say
    with night.checkout():
        assert labels.checkout() == name
        assert night.home() == tree != Path.cwd()
    assert night.home() == tree == Path.cwd()


def test_without_a_commit_there_is_no_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(("git", "init", "-q"), check=True)
    state = run()
    assert state.is_failed()
    assert "retraining needs the project in a git repository with a commit" in str(state.message)
