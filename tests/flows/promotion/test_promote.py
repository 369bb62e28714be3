"""Putting models into service: what it takes, what is kept, and how it is taken back."""

import json
import os
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flows import history as history_command
from flows import promote, rollback, why
from flows.promote import Waits
from flows.promotion import answers, arrivals, candidate, history, judge, judgement, looks, store, tags, waiting
from flows.promotion.candidate import of_models
from flows.promotion.history import Entry
from tasks.gates import quality, serving
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.harness.records import read_json
from tasks.params import whole
from tasks.prepared import Split
from tests.flows.promotion.conftest import ENTRY, OnTheDisk, Variant


@pytest.fixture
def blessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate is better than the model in service."""
    verdict = Verdict("quality", "passed", figures={"gain": 0.0084, "p": 0.0007, "rule": "better"})
    monkeypatch.setattr(quality, "judge", lambda *_: verdict)


def run(*arguments: str) -> None:
    promote.main(arguments)


def test_the_first_model_goes_into_service_with_all_that_belongs_to_it(
    ready: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = Path("models/model.onnx").read_bytes()
    run()
    (entry,) = history.read(ready)
    folder = ready / entry.model
    assert {path.name for path in folder.iterdir()} == set(entry.files) == {
        "model.onnx", "model.pth", "model.json", "golden.json", "reference.npz", "verdict.json"
    }  # fmt: skip
    assert (folder / "model.onnx").read_bytes() == onnx
    assert not any(path.stat().st_mode & 0o222 for path in folder.iterdir())
    assert json.loads((ready / "champion.json").read_text())["path"] == f"{entry.model}/model.onnx"
    assert entry.blessings == {"quality": "passed", "parity": "passed", "serving": "passed"}
    assert (entry.replaces, entry.rule, entry.gain, entry.forced) == (None, None, None, False)
    with np.load(folder / "reference.npz") as reference:
        assert len(reference["digests"]) == reference["label_counts"].sum() == 6
        assert len(reference["test_digests"]) == 8
    printed = capsys.readouterr().out
    assert f"candidate  {entry.model[:7]}, the first: there is none in service" in printed
    assert printed.endswith(f"{entry.line}\n")


def test_a_model_that_is_in_service_is_left_there(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    run()
    assert len(history.read(ready)) == 1
    assert f"{history.read(ready)[0].model[:7]} is in service already" in capsys.readouterr().out


def test_one_that_is_no_better_is_refused_and_why_says_so(
    ready: Path, variant: Variant, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    other = variant("another")
    with pytest.raises(SystemExit, match=f"Refused: quality failed; {other[:7]} is not put into service. FORCE=1"):
        run()
    assert len(history.read(ready)) == 1
    assert not (ready / other).exists()
    _, _, said = capsys.readouterr().out.rpartition("\nquality    failed\n")
    why.main([])
    printed = capsys.readouterr().out
    reasons = printed.partition("\nquality: failed\n")[2].partition("\n  accuracy ")[0]
    assert said.startswith(f"{reasons}\nparity     passed: "), "a row for each reason"
    assert printed.startswith(f"Refused: quality failed\ncandidate  {other[:7]}, against ")
    assert "look 2 at them" in printed
    assert "too few to tell" in printed
    page = Path(printed.splitlines()[-1]).read_text()
    assert "Refused: quality failed" in page
    assert "too few to tell" in page
    assert "Recall by class" in page


def test_by_force_it_goes_into_service_and_the_history_says_so(ready: Path, variant: Variant) -> None:
    run()
    variant("another")
    with pytest.raises(SystemExit) as usage:
        run("--force")
    assert usage.value.code == 2
    run("--force", "--reason", "the old one has wrong labels")
    entry = history.read(ready)[1]
    assert (entry.forced, entry.reason) == (True, "the old one has wrong labels")
    assert "promoted by force" in entry.line
    assert entry.blessings["quality"] == "failed"


def test_the_environment_says_it_as_make_does(ready: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    first = history.read(ready)[0].model
    variant("another")
    monkeypatch.setenv("FORCE", "1")
    monkeypatch.setenv("REASON", "a reason; $(touch never)")
    run()
    monkeypatch.setenv("VERSION", first[:9].upper())
    monkeypatch.setenv("REASON", "back by promotion")
    run()
    entries = history.read(ready)
    assert [entry.reason for entry in entries] == [None, "a reason; $(touch never)", "back by promotion"]
    assert (entries[2].model, entries[2].files) == (first, entries[0].files)


@pytest.mark.usefixtures("blessed")
def test_a_better_one_replaces_it_with_its_figures(ready: Path, variant: Variant) -> None:
    run()
    variant("another")
    run("--reason", "new data")
    first, second = history.read(ready)
    assert (second.replaces, second.gain, second.p, second.rule) == (first.model, 0.0084, 0.0007, "better")
    assert "+0.84 pt (p = 0.0007)" in second.line


@pytest.mark.usefixtures("blessed")
def test_one_that_waits_goes_into_service_once_a_person_says_so(
    ready: Path, variant: Variant, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    second = variant("another")
    said = f'{second[:7]} waits: make promote VERSION={second[:7]} REASON="..."'
    with pytest.raises(Waits, match=f"^{re.escape(said)}$"):
        promote.promote(ready, whole.load(), of_models(), wait=True)
    assert [entry.model == second for entry in history.read(ready)] == [False]
    Path("models/model.onnx").unlink()  # it is in the registry
    capsys.readouterr()
    history_command.main([])
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(rf'waits \S+ \S+  make promote VERSION={second[:7]} REASON="\.\.\."', line)
    run("--version", second[:4], "--reason", "looked at it")
    entry = history.read(ready)[-1]
    assert (entry.model, entry.reason, entry.forced) == (second, "looked at it", False)
    assert waiting.read(ready) == []
    waiting.add(ready, entry)  # as where it was killed before the last step
    run("--version", second[:4])
    assert (waiting.read(ready), len(history.read(ready))) == ([], 2)


@pytest.mark.usefixtures("blessed")
def test_what_waits_and_was_changed_meanwhile_does_not_go_into_service(ready: Path, variant: Variant) -> None:
    second = variant("another")
    with pytest.raises(Waits):
        promote.promote(ready, whole.load(), of_models(), wait=True)
    weights = ready / second / "model.pth"
    weights.chmod(0o644)
    weights.write_bytes(b"others")
    with pytest.raises(SystemExit, match=r"^promote: .*model\.pth missing, or not what"):
        run("--version", second)
    assert history.read(ready) == []
    (ready / "waiting" / f"{second}.json").write_text("{}")
    with pytest.raises(SystemExit, match=f"^promote: .*waiting/{second}.json"):
        run("--version", second)


@pytest.mark.usefixtures("blessed")
def test_one_that_was_overtaken_is_judged_again(
    ready: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    append = history.append

    def overtaken(root: Path, entry: Entry) -> None:
        monkeypatch.setattr(history, "append", append)
        other = variant("of somebody else")
        run()
        assert history.read(root)[-1].model == other
        Path("models/model.onnx").write_bytes(content)
        append(root, entry)

    mine = variant("mine")
    content = Path("models/model.onnx").read_bytes()
    monkeypatch.setattr(history, "append", overtaken)
    run()
    entries = history.read(ready)
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert entries[2].model == mine
    assert "entry 2 has been made by somebody else meanwhile; judged again" in capsys.readouterr().out


@pytest.mark.usefixtures("blessed")
def test_a_rollback_that_was_overtaken_by_a_promotion_leaves_it_in_service(
    ready: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    variant("another")
    run()
    third, append = variant("of somebody else"), history.append

    def overtaken(root: Path, entry: Entry) -> None:
        monkeypatch.setattr(history, "append", append)
        run()
        append(root, entry)

    monkeypatch.setattr(history, "append", overtaken)
    with pytest.raises(SystemExit, match=r"^rollback: entry 3 has been made by somebody else$"):
        rollback.main(["--reason", "odd boots"])
    assert [entry.model == third for entry in history.read(ready)] == [False, False, True]


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("abc", "has fewer than 4 digits"),
        ("ffffffff", "is no model in the registry; those that are: "),
    ],
)
def test_a_version_that_is_none_is_refused(ready: Path, version: str, says: str) -> None:
    run()
    with pytest.raises(SystemExit, match=f"version '{version}' {says}"):
        run("--version", version)


def test_a_model_of_another_state_of_the_project_is_refused(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "stale", lambda: ["train", "evaluate", "export"])
    with pytest.raises(SystemExit, match="models/ is out of date: train and what follows it would run again"):
        run()
    assert not ready.exists()


def test_a_model_without_its_blessing_of_parity_is_refused(ready: Path) -> None:
    report = read_json(Path("reports/parity.json"))
    report["verdict"] |= {"outcome": "failed", "reasons": ["the logits differ"]}
    Path("reports/parity.json").write_text(json.dumps({"schema_version": 1, **report}))
    with pytest.raises(SystemExit, match="parity failed"):
        run()
    assert not history.read(ready)


def test_a_floor_holds_for_the_first_model_too(ready: Path) -> None:
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("min_accuracy: null", "min_accuracy: 1.0"))
    with pytest.raises(SystemExit, match="Refused: quality failed"):
        run()


def test_a_limit_of_serving_holds(ready: Path) -> None:
    params = Path("params.yaml")
    params.write_text(re.sub(r"max_memory_mb: \d+", "max_memory_mb: 1", params.read_text()))
    with pytest.raises(SystemExit, match="Refused: serving failed"):
        run()


@pytest.mark.parametrize(("what", "other"), [("class_names", ["boot", "bag"]), ("image_shape", (32, 32, 3))])
def test_a_champion_of_other_classes_or_images_cannot_be_compared(
    ready: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch, what: str, other: object
) -> None:
    run()
    variant("another")
    opened = answers.opened

    def changed(model: bytes, provider: str, name: str) -> object:
        predictor = opened(model, provider, name)
        if model == (ready / history.read(ready)[0].model / "model.onnx").read_bytes():
            setattr(predictor, what, other)
        return predictor

    monkeypatch.setattr(judge, "opened", changed)
    with pytest.raises(SystemExit, match="Refused: quality not run"):
        run()


def test_test_images_that_the_champion_was_trained_on_do_not_count(ready: Path, variant: Variant) -> None:
    run()
    for split in ("images", "labels"):
        test, train = (np.load(f"data/prepared/{name}_{split}.npy") for name in ("test", "train"))
        np.save(f"data/prepared/test_{split}.npy", np.concatenate([test[:6], train[:2]]))
    variant("another")
    with pytest.raises(SystemExit):
        run()
    verdict = json.loads(sorted(ready.glob("verdicts/*.json"))[-1].read_text())
    assert verdict["test_images"] == 8
    assert verdict["blessings"][0]["figures"]["images"] == 6


def test_test_images_that_a_model_of_the_registry_was_trained_on_do_not_count(ready: Path, variant: Variant) -> None:
    def save(split: str, images: NDArray[Any]) -> None:
        path = Path(f"data/prepared/{split}_images.npy")
        path.unlink()  # it may be a link, and is read
        np.save(path, images)

    run()
    train, test = Split.read("train").images, Split.read("test").images
    save("train", train ^ 255)
    variant("trained on others")
    run("--force", "--reason", "x")
    save("test", np.concatenate([test[:6], train[:2]]))  # no leak by the split of now
    with pytest.raises(SystemExit):
        run("--version", history.read(ready)[0].model)
    found, _ = judgement.read_last(ready) or pytest.fail("there is no verdict")
    assert (found.test_images, found.blessing("quality").figures["images"]) == (8, 6)


def test_looks_are_counted_until_a_quarter_of_the_images_is_new(tmp_path: Path) -> None:
    images = np.arange(100, dtype=np.uint64)
    assert [looks.count(tmp_path, "digits", images) for _ in range(3)] == [1, 2, 3]
    assert looks.count(tmp_path, "digits", np.concatenate([images[24:], images[:24] + 1000])) == 4
    assert looks.count(tmp_path, "digits", np.concatenate([images[25:], images[:25] + 1000])) == 1
    (tmp_path / "looks-digits.npz").write_bytes(b"cut off")
    assert looks.count(tmp_path, "digits", images) == 1


def test_the_fiftieth_look_is_remarked(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "MANY", 1)
    run()
    verdict = json.loads(next(ready.glob("verdicts/*.json")).read_text())
    assert verdict["remarks"][0].startswith("1 models have been judged on these test images")


@pytest.mark.usefixtures("blessed")
def test_a_rollback_puts_the_model_before_back(
    ready: Path, variant: Variant, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    variant("another")
    run()
    rollback.main(["--reason", "odd boots"])
    first, second, third = history.read(ready)
    assert (third.action, third.model, third.replaces, third.reason) == (
        "rolled back", first.model, second.model, "odd boots"
    )  # fmt: skip
    assert third.blessings == {"serving": "passed"}
    assert json.loads((ready / "champion.json").read_text())["sha256"] == first.model
    assert "serving    passed: golden requests" in capsys.readouterr().out
    rollback.main(["--to", second.model[:5], "--reason", "no, it was the camera"])
    assert history.read(ready)[-1].model == second.model


def test_a_rollback_needs_a_reason_and_a_model(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as usage:
        rollback.main([])
    assert usage.value.code == 2
    with pytest.raises(SystemExit, match="no model is in service yet"):
        rollback.main(["--reason", "x"])
    run()
    with pytest.raises(SystemExit, match="is the first model: it has replaced none"):
        rollback.main(["--reason", "x"])
    with pytest.raises(SystemExit, match="is in service already"):
        rollback.main(["--reason", "x", "--to", history.read(ready)[0].model])


@pytest.mark.usefixtures("blessed")
@pytest.mark.parametrize("name", ["model.onnx", "model.pth", "golden.json"])
@pytest.mark.parametrize("damage", ["edit", "remove"])
def test_a_model_that_was_damaged_does_not_come_back(ready: Path, variant: Variant, name: str, damage: str) -> None:
    run()
    variant("another")
    run()
    path = ready / history.read(ready)[0].model / name
    path.chmod(0o644)
    path.unlink() if damage == "remove" else path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(SystemExit, match=f"{name} missing, or not what entry 1 put into service"):
        rollback.main(["--reason", "x"])
    assert len(history.read(ready)) == 2


@pytest.mark.usefixtures("blessed")
def test_a_model_that_no_longer_answers_as_it_did_does_not_come_back(
    ready: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    variant("another")
    run()
    failed = Verdict("serving", "failed", ["3 of 20 golden requests get another answer"])
    monkeypatch.setattr(serving, "gate", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="is not put into service: failed: 3 of 20 golden requests"):
        rollback.main(["--reason", "x"])
    assert len(history.read(ready)) == 2


def test_beside_a_damaged_champion_a_model_goes_into_service_by_force_alone(ready: Path, variant: Variant) -> None:
    run()
    path = ready / history.read(ready)[0].model / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"")
    variant("another")
    with pytest.raises(SystemExit, match="Refused: quality not run"):
        run()
    found, _ = judgement.read_last(ready) or pytest.fail("there is no verdict")
    assert "model.onnx missing, or not what entry 1 put into service" in found.blessing("quality").reasons[0]
    run("--force", "--reason", "the disk")
    entries = history.read(ready)
    assert len(entries) == 2
    assert arrivals.look(ready, entries, whole.load()).figures["arrivals"] == 0, "and nights go on"


def test_a_promotion_that_was_killed_is_done_again(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(root: Path, entry: Entry) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(history, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not history.read(ready)
    run()
    assert len(history.read(ready)) == 1


def test_history_says_who_was_in_service_then(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history_command.main([])
    printed = capsys.readouterr().out
    assert "No model has been in service yet" in printed
    assert "make pull-champion" in printed
    run()
    (entry,) = history.read(ready)
    capsys.readouterr()
    history_command.main([])
    assert capsys.readouterr().out == f"{entry.line}\n"
    history_command.main(["--at", entry.time[:10]])
    assert capsys.readouterr().out == f"{entry.line}\n"
    history_command.main(["--at", "2020-01-01T03:41"])
    assert "No model was in service then: the first one is, since" in capsys.readouterr().out
    with pytest.raises(SystemExit) as usage:
        history_command.main(["--at", "yesterday"])
    assert usage.value.code == 2
    assert "'yesterday' is no time: 2026-11-20, or 2026-11-20T03:41" in capsys.readouterr().err


def test_why_before_anything_was_judged(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why.main([])
    assert "No model has been judged yet" in capsys.readouterr().out


def test_the_registry_may_lie_elsewhere(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_the_disk: OnTheDisk
) -> None:
    monkeypatch.setenv("REGISTRY", str(root := tmp_path / "else where/registry"))
    run()
    assert not ready.exists()
    (entry,) = history.read(root)
    assert on_the_disk(root, root / entry.name)
    assert on_the_disk(root.parent, root / entry.name)


def test_a_folder_that_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    content = b"model"
    digest = sha256(content).hexdigest()
    files = store.put(tmp_path, digest, {"model.onnx": content, "golden.json": b"{}"})
    other: dict[str, Any] = {"model.onnx": content, "golden.json": lambda: pytest.fail("it was made for nothing")}
    assert store.put(tmp_path, digest, other) == files
    assert not list(tmp_path.glob(".partial-*"))


def test_a_verdict_stands_for_the_same_model_champion_and_limits(ready: Path, variant: Variant) -> None:
    run()
    (first,) = history.read(ready)
    other, limits = variant("another"), whole.load().retraining.model_dump()
    images = store.name_of(store.digests(Split.read("test").images))
    assert judgement.worse(ready, other, first.model, limits, images) is None
    with pytest.raises(SystemExit):
        run()
    assert judgement.worse(ready, other, first.model, limits, images)
    assert judgement.worse(ready, other, first.model, limits, "other images") is None
    assert judgement.worse(ready, other, None, limits, images) is None
    assert judgement.worse(ready, other, first.model, {**limits, "rule": "not_worse"}, images) is None
    assert judgement.worse(ready, first.model, None, limits, images) is None, "it passed: a kill may have kept it away"
    for path in ready.glob(f"verdicts/*-{other[:7]}.json"):
        path.write_text("")
    assert judgement.worse(ready, other, first.model, limits, images) is None


@pytest.mark.usefixtures("blessed")
def test_a_second_rollback_goes_further_back(ready: Path, variant: Variant) -> None:
    run()
    for note in ("b", "c"):
        variant(note)
        run()
    for reason in ("c is bad", "b, too"):
        rollback.main(["--reason", reason])
    a, b, c, *back = history.read(ready)
    assert [entry.model for entry in back] == [b.model, a.model]
    with pytest.raises(SystemExit, match="is the first model: it has replaced none"):
        rollback.main(["--reason", "and further"])
    assert c.model == history.read(ready)[2].model


def test_who_has_the_first_digits_of_two_models_is_asked_for_more(ready: Path) -> None:
    run()
    (first,) = history.read(ready)
    twin = replace(first, model=first.model[:4] + "0" * 60)
    with pytest.raises(StageError, match=f"version '{first.model[:4]}' stands for 2 models"):
        store.find([first, twin], first.model[:4])


@pytest.mark.parametrize(("force", "code"), [("1", None), ("0", 1), ("no", 2), ("true", 2)])
def test_force_is_1_or_0(
    ready: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch, force: str, code: int | None
) -> None:
    run()
    variant("another")
    monkeypatch.setenv("FORCE", force)
    monkeypatch.setenv("REASON", "why not")
    if code is None:
        run()
        return
    with pytest.raises(SystemExit) as exit_:
        run()
    assert exit_.value.code == 2 if code == 2 else "Refused" in str(exit_.value.code)


@pytest.mark.parametrize("command", [promote, rollback])
def test_a_registry_that_cannot_be_written_ends_in_a_sentence(
    ready: Path, monkeypatch: pytest.MonkeyPatch, command: ModuleType
) -> None:
    Path("file").touch()
    monkeypatch.setenv("REGISTRY", "file/registry")
    monkeypatch.setenv("REASON", "x")
    with pytest.raises(SystemExit, match=rf"^{command.__name__.partition('.')[2]}: "):
        command.main([])


def test_what_a_killed_promotion_has_left_is_removed_in_time(tmp_path: Path) -> None:
    for name, age in ((".partial-old", 7200), (".partial-new", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    store.put(tmp_path, sha256(b"model").hexdigest(), {"model.onnx": b"model"})
    assert [path.name for path in tmp_path.glob(".partial-*")] == [".partial-new"]


def test_a_folder_that_lacks_a_file_is_no_good(tmp_path: Path) -> None:
    files = {"model.onnx": b"model", "golden.json": b"{}"}
    digest = sha256(b"model").hexdigest()
    store.put(tmp_path, digest, files)
    (tmp_path / digest / "golden.json").unlink()
    with pytest.raises(StageError, match="it is damaged"):
        store.put(tmp_path, digest, files)


def test_losses_are_counted_from_the_last_model_that_was_found_better() -> None:
    first = replace(ENTRY, rule=None, gain=None, p=None)
    better = replace(first, number=2, replaces="a" * 64, model="b" * 64, rule="better")
    forced = replace(better, number=3, model="c" * 64, forced=True, blessings={"quality": "failed"})
    not_worse = replace(better, number=4, model="d" * 64, rule="not_worse")
    assert judge.last_better([first, not_worse]) == first
    assert judge.last_better([first, better, not_worse, forced]) == better
    back = replace(first, number=5, action="rolled back", replaces=better.model)
    assert judge.last_better([first, better, back]) == first
    again = replace(back, number=6, model=better.model, replaces=first.model)
    assert judge.last_better([first, better, back, again]) == better


def of_the_first_test_images(new: int) -> None:
    """Have so many of the 8 test images be others than they were."""
    path = Path("data/prepared/test_images.npy")
    images = np.load(path)
    images[:new] ^= 255
    path.unlink()  # it may be a link
    np.save(path, images)


def test_as_not_worse_one_model_comes_in_thirty_days_and_on_new_test_images(
    ready: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = Verdict("quality", "passed", figures={"gain": -0.001, "p": 0.7, "rule": "not_worse"})
    monkeypatch.setattr(quality, "judge", lambda *_: passed)
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("rule: better", "rule: not_worse"))
    start = datetime(2026, 11, 1, tzinfo=UTC)
    monkeypatch.setattr(history, "now", lambda: start)
    run()
    variant("second")
    run("--force", "--reason", "the first one has nothing to be compared with")
    second = history.read(ready)[-1]
    third = variant("third")
    monkeypatch.setattr(history, "now", lambda: start + timedelta(days=29, hours=23))
    with pytest.raises(SystemExit, match=r"^promote: Refused: quality not run;"):
        run()
    since, otherwise = f"{second.version} came in as not worse at 2026-11-01T00:00 UTC", "by the rule better any time"
    early = f"{since}, and one model may in 30 days; {otherwise}"
    assert why_not(ready) == [early, f"{since}; since then 0% of the test images are new, 25% have to be; {otherwise}"]
    of_the_first_test_images(1)
    monkeypatch.setattr(history, "now", lambda: start + timedelta(days=30))
    with pytest.raises(SystemExit, match=r"^promote: Refused: quality not run;"):
        run()
    assert why_not(ready) == [f"{since}; since then 12% of the test images are new, 25% have to be; {otherwise}"]
    of_the_first_test_images(1)  # as it was
    of_the_first_test_images(2)
    run()
    assert history.read(ready)[-1].model == third


def why_not(root: Path) -> list[str]:
    """Return the reasons of the last verdict about quality."""
    verdict, _ = judgement.read_last(root) or pytest.fail("there is no verdict")
    return verdict.blessing("quality").reasons


def test_as_not_worse_no_model_comes_in_where_the_test_images_of_the_last_one_are_not_known(
    ready: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    (first,) = history.read(ready)
    entries = [first, replace(first, number=2, rule="not_worse", time="2020-01-01T00:00:00+00:00")]
    assert judge.too_soon(ready, [first], np.arange(8, dtype=np.uint64)) == []
    assert judge.too_soon(ready, entries, np.arange(8, dtype=np.uint64)) == [], "all of them are new"
    known = store.read_reference(ready / first.model)
    monkeypatch.setattr(store, "read_reference", lambda _: replace(known, test_digests=None))
    (reason,) = judge.too_soon(ready, entries, np.arange(8, dtype=np.uint64))
    assert "on images that were not kept" in reason
    (ready / first.model / "reference.npz").unlink()
    (reason,) = judge.too_soon(ready, entries, np.arange(8, dtype=np.uint64))
    assert "on images that cannot be told" in reason
    assert "reference.npz missing" in reason


def test_what_has_rotted_is_not_blessed_anew(ready: Path, variant: Variant) -> None:
    run()
    first = Path("models/model.onnx").read_bytes()
    variant("another")
    run("--force", "--reason", "x")
    path = ready / history.read(ready)[0].model / "model.pth"
    path.chmod(0o644)
    path.write_bytes(b"rot")
    Path("models/model.onnx").write_bytes(first)
    with pytest.raises(SystemExit, match=r"model\.pth missing, or not what entry 1 put into service"):
        run("--force", "--reason", "x")


@pytest.mark.usefixtures("blessed")
def test_what_goes_into_service_and_back_is_tagged_and_what_came_of_it_is_said(
    ready: Path, variant: Variant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "mirror", lambda root: f"tagged {history.read(root)[-1].number}")
    run()
    run()  # is in service already, and may not have its tags yet
    variant("another")
    run()
    rollback.main(["--reason", "odd boots"])
    assert re.findall(r"^tagged \d$", capsys.readouterr().out, re.MULTILINE) == [f"tagged {n}" for n in (1, 1, 2, 3)]
