"""A month of nights on a simulated clock: what is in service each morning, and what history and verdicts say of it.

The images carry what they show and how hard that is in their pixels, and a model is right where it is not too hard: as
ONNX files these are judged, kept and tried as any other. What a stage would do is played; what decides is not.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flows import history as history_command
from flows import promote, retraining, rollback
from flows.promotion import candidate, history, judgement, store
from flows.promotion.history import Entry
from flows.promotion.judgement import Judgement
from flows.report import nights
from flows.runtime import labels, night
from flows.runtime.clone import Clone
from tasks.dvc import StageFailed, StageRun
from tasks.gates.verdict import Verdict, report
from tasks.harness.records import write_json
from tasks.prepared import Card

CLASSES, SIDE = 4, 6
NAMES = ["boot", "shirt", "bag", "coat"]
START = datetime(2026, 11, 1, 3, tzinfo=UTC)


def drawn(seed: int, images: int, brightness: float = 100, labels: int | None = None) -> tuple[Any, Any]:
    """Draw images, `uint8 [N, 6, 6, 1]`, and what they show: the first pixel; the next eleven say how hard that is."""
    random = np.random.default_rng(seed)
    pixels = random.normal(brightness, 20, (images, SIDE, SIDE, 1)).clip(0, 255).astype(np.uint8)
    shown = random.integers(0, CLASSES, images) if labels is None else np.full(images, labels)
    pixels[:, :2] = random.integers(0, 256, (images, 2, SIDE, 1))
    pixels[:, 0, 0, 0] = shown
    return pixels, shown.astype(np.int64)


def model(skill: int, kind: int) -> bytes:
    """Make a model that is right where an image is not too hard; of eleven kinds each finds others hard."""

    def chosen(pixel: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.eye(SIDE * SIDE, dtype=np.float32)[:, [pixel]], f"pixel {pixel}")

    right = skill / 256
    constants = {
        "flat": np.array([-1, SIDE * SIDE], np.int64),
        "skill": np.float32(skill),
        "one": np.float32(1),
        "classes": np.arange(CLASSES, dtype=np.float32),
        "count": np.float32(CLASSES),
        "margin": np.float32(np.log(right / (1 - right) * (CLASSES - 1))),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "flat"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "pixel 0"], ["shown"]),
        helper.make_node("MatMul", ["pixels", f"pixel {kind}"], ["hard"]),
        helper.make_node("Less", ["hard", "skill"], ["known"]),
        helper.make_node("Add", ["shown", "one"], ["next"]),
        helper.make_node("Mod", ["next", "count"], ["other"], fmod=1),
        helper.make_node("Where", ["known", "shown", "other"], ["answer"]),
        helper.make_node("Equal", ["answer", "classes"], ["is"]),
        helper.make_node("Cast", ["is"], ["one hot"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["one hot", "margin"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", CLASSES])
        for name in ("logits", "probabilities")
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "played", [images], outputs, [*weights, chosen(0), chosen(kind)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    metadata = {"class_names": json.dumps(NAMES), "schema_version": "1", "resize": "stretch"}
    helper.set_model_props(made, metadata)
    content: bytes = made.SerializeToString(deterministic=True)
    return content


@dataclass
class World:
    """What a night finds, and the time."""

    now: datetime = START
    skill: int = 180
    kind: int = 1
    arrived: list[tuple[Any, Any]] = field(default_factory=lambda: [drawn(0, 1000)])
    spoilt: str | None = None  # why the images cannot be prepared
    breaks: Callable[[], NoReturn] | None = None  # instead of the training
    shown: list[Judgement] = field(default_factory=list)  # in Prefect's UI

    def prepare(self, changes: list[str]) -> list[StageRun]:
        if self.spoilt:
            raise StageFailed(self.spoilt)
        folder = Path("data/prepared")
        folder.mkdir(parents=True, exist_ok=True)
        images, labels_ = (np.concatenate(parts) for parts in zip(*self.arrived, strict=True))
        splits = {"train": (images, labels_), "validation": drawn(8, 100), "test": drawn(9, 600)}
        for name, (pixels, shown) in splits.items():
            np.save(folder / f"{name}_images.npy", pixels)
            np.save(folder / f"{name}_labels.npy", shown)
        sizes: Any = {name: len(shown) for name, (_, shown) in splits.items()}
        Card("played", NAMES, [SIDE, SIDE, 1], [0.4], [0.1], sizes, {}, "stretch", {}).write(folder)
        return []

    def learn(self, prepared: list[StageRun], started: datetime) -> None:
        if self.breaks:
            self.breaks()
        Path("models").mkdir(exist_ok=True)
        Path("models/model.onnx").write_bytes(model(self.skill, self.kind))
        for name in ("model.pth", "model.json"):
            Path("models", name).write_text(f"{self.skill} {self.kind}")
        Path("reports").mkdir(exist_ok=True)
        write_json(Path("reports/parity.json"), report("parity", [], {}, {}))


@pytest.fixture
def world(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    @contextmanager
    def here() -> Iterator[Clone]:
        yield Clone(checkout, checkout)

    monkeypatch.setattr(night, "checkout", here)
    monkeypatch.setattr(night, "edits", lambda: None)
    monkeypatch.setattr(night, "link", lambda _: None)
    monkeypatch.setattr(labels, "tag", lambda: None)
    monkeypatch.setattr(retraining, "kept", lambda *_: "")
    monkeypatch.setattr(retraining, "shared_with_others", list)
    monkeypatch.setattr(nights, "publish", lambda judged, page: world.shown.append(judged))
    monkeypatch.setattr(retraining, "this_run", lambda: f"run of {world.now}")
    monkeypatch.setattr(retraining, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(retraining, "prepare", world.prepare)
    monkeypatch.setattr(retraining, "learn", world.learn)
    monkeypatch.setattr(candidate, "stale", list)
    monkeypatch.setattr(history, "now", lambda: world.now)
    for name in ("AT", "FORCE", "REASON", "REGISTRY", "TO", "VERSION"):
        monkeypatch.delenv(name, raising=False)
    return world


def killed() -> NoReturn:
    raise KeyboardInterrupt


def test_a_month(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path("models/registry")
    states: list[str] = []

    def a_night(**what: Any) -> str:
        """Play the next night, and look at the registry in the morning; return the state."""
        world.now += timedelta(days=1)
        vars(world).update(what)
        before, world.shown = history.read(root), []
        try:
            state = retraining.retraining.fn()
            name = str(state.name)
        except KeyboardInterrupt:
            name = "killed"
        entries = history.read(root)
        assert entries[: len(before)] == before
        assert len(entries) - len(before) == (name == "Promoted")
        if entries:
            for entry in entries:
                store.check(root, entry)
            pointer = json.loads((root / "champion.json").read_text())
            assert (pointer["number"], pointer["sha256"]) == (len(entries), entries[-1].model)
        judged = [json.loads(path.read_text())["by"] for path in (root / "verdicts").glob("*.json")]
        shown = name != "killed" and f"run of {world.now}" in judged
        assert world.shown == ([verdict()] if shown else [])
        states.append(name)
        return name

    def verdict() -> judgement.Judgement:
        found = judgement.read_last(root)
        assert found
        return found[0]

    def quality() -> Verdict:
        return verdict().blessing("quality")

    old = world.arrived
    assert a_night() == "Promoted"  # the first
    assert a_night() == "Nothing new"
    assert a_night(kind=2) == "Refused"  # as good, and other images are hard for it
    assert "not shown to be better than the champion" in quality().reasons[0]
    assert a_night() == "Nothing new"  # it was judged already
    assert a_night(skill=210, kind=1) == "Promoted"  # better
    assert history.read(root)[1].gain == pytest.approx(30 / 256, abs=0.03)
    assert a_night(skill=170) == "Refused"  # worse
    assert quality().reasons[0].startswith("not shown to be better")

    assert a_night(skill=210, kind=2, arrived=[*old, drawn(1, 300)]) == "Refused"  # new images, the same kind of them
    arrivals = verdict().arrivals
    assert arrivals
    assert (arrivals.outcome, arrivals.figures["arrivals"], arrivals.reasons) == ("passed", 300, [])
    assert a_night(skill=211, arrived=[*old, drawn(2, 300, brightness=150)]) == "Refused"  # drifted
    assert any(remark.startswith("brightness has drifted") for remark in verdict().remarks)

    shuffled, shown = drawn(3, 300)
    assert a_night(arrived=[*old, (shuffled, np.random.default_rng(0).permutation(shown))]) == "Blocked"
    assert "which may be shuffled" in " ".join(verdict().arrivals.reasons)  # type: ignore[union-attr]
    black = np.zeros((20, SIDE, SIDE, 1), np.uint8), np.zeros(20, np.int64)
    assert a_night(arrived=[*old, black, drawn(4, 100)]) == "Blocked"
    assert a_night(arrived=[*old, drawn(5, 60, labels=2)]) == "Blocked"
    assert a_night(arrived=[drawn(6, 1000)]) == "Blocked"  # all that it knew is gone
    assert verdict().headline.startswith("Blocked: no model was trained")
    assert a_night(arrived=old, spoilt="transform: 90 of 1,000 images cannot be read") == "Blocked"
    assert verdict().headline == "Blocked: no model was put into service"
    assert "90 of 1,000 images cannot be read" in verdict().blessing("night").reasons[0]

    assert a_night(skill=240, kind=1, spoilt=None, breaks=killed) == "killed"  # in its training
    assert verdict().headline == "Stopped: no model was put into service"
    append = history.append
    with monkeypatch.context() as patch:
        patch.setattr(history, "append", lambda *_: killed())
        assert a_night(breaks=None) == "killed"  # in its promotion
    assert history.append is append
    assert a_night() == "Promoted"  # the next one completes
    assert a_night() == "Nothing new"

    promoted: list[Entry] = history.read(root)
    rollback.main(["--reason", "odd boots"])
    assert history.read(root)[-1].model == promoted[1].model
    assert a_night() == "Nothing new"  # what was taken back does not come back by itself
    assert a_night(skill=212, kind=2) == "Refused"
    promote.main(["--force", "--reason", "the other camera"])
    assert history.read(root)[-1].forced
    assert a_night() == "Nothing new"
    assert a_night(skill=213, kind=1) == "Refused"

    while len(states) < 30:  # and an equal one each night to the end of the month
        assert a_night(skill=212, kind=len(states) % 9 + 3) == "Refused"

    entries = history.read(root)
    assert [(entry.action, entry.forced) for entry in entries] == [
        ("promoted", False), ("promoted", False), ("promoted", False), ("rolled back", False), ("promoted", True)
    ]  # fmt: skip
    capsys.readouterr()
    history_command.main(["--at", (START + timedelta(days=4)).date().isoformat()])
    assert capsys.readouterr().out == f"{entries[0].line}\n"
    history_command.main(["--at", (START + timedelta(days=5)).date().isoformat()])
    assert capsys.readouterr().out == f"{entries[1].line}\n"
    by_hand, killed_after = 1, 1  # these were judged, too
    assert verdict().looks == states.count("Promoted") + states.count("Refused") + by_hand + killed_after
