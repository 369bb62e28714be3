"""A training that was stopped goes on to the bytes of one that was not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flows import overrides, recipes
from tasks import train
from tasks.harness.errors import StageError
from tasks.model.classifier import Classifier, digest
from tasks.model.determinism import set_up
from tasks.networks.from_timm import PREFIX, create
from tasks.params import whole
from tasks.prepared import FOLDER as PREPARED
from tasks.prepared import Card, Split
from tasks.training import checkpoint, loop
from tasks.training.checkpoint import FOLDER, Checkpoint
from tasks.training.curve import CURVE, LearningCurve
from tasks.training.ranks import Ranks
from tasks.training.record import Epochs
from tasks.training.state import Training
from tasks.training.transfer import Weights
from tests.support.params import ROOT, shipped_params, write_params

CPU = torch.device("cpu")


class Stopped(Exception):
    pass


class StopsAfter(Checkpoint):
    """Saves after every step, and stops the training after `steps` of them."""

    def __init__(self, steps: int) -> None:
        super().__init__("key", CPU)
        self.steps = steps

    def save_if_due(self, state: Callable[[], dict[str, object]]) -> None:
        self._due = 0
        super().save_if_due(state)
        self.steps -= 1
        if not self.steps:
            raise Stopped


# All that a step may have besides: a state of the optimiser, a learning rate that moves, random numbers, an average.
ALL: dict[str, object] = {
    "momentum": 0.9,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "augment": {"flip": True, "shift": 2, "cutout": 4, "color": 0.2, "mixup": 0.5, "cutmix": 0.0},
    "ema_decay": 0.5,
    "keep": "best",
}


def begin(**changes: object) -> Training:
    """Begin a training whose every step draws random numbers, and whose optimiser has a state of its own."""
    p = write_params(train={"epochs": 3, "batch_size": 2, "learning_rate": 0.05} | ALL | changes).train
    set_up(p.threads, p.seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10))
    return Training(Classifier(network, [0.0], [1.0]), Split.read("train"), 10, p, CPU)


def finish(saved: Checkpoint, **changes: object) -> tuple[dict[str, Tensor], bytes]:
    training = begin(**changes)
    curve = LearningCurve()
    loop.fit(training, Split.read("validation"), curve, saved)
    return training.result(), CURVE.read_bytes()


@pytest.mark.parametrize("steps", range(1, 9))  # three batches an epoch
def test_it_goes_on_at_any_step_with_the_same_bytes(
    prepared: Path, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, curve = finish(StopsAfter(-1))
    Checkpoint("key", CPU).remove()
    with pytest.raises(Stopped):
        finish(StopsAfter(steps))
    torch.manual_seed(steps)  # another process has another state
    capsys.readouterr()
    found, its_curve = finish(Checkpoint("key", CPU))
    epoch, batch = (steps - 1) // 3 + 1, (steps - 1) % 3 + 1
    assert f"Going on after batch {batch} of epoch {epoch}, where a run was stopped" in capsys.readouterr().out
    assert its_curve == curve
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(("batch_size", "steps"), [(4, 2), (5, 1)])
def test_it_goes_on_after_a_smaller_or_larger_batch_at_the_end_of_an_epoch(
    prepared: Path, batch_size: int, steps: int
) -> None:
    expected, curve = finish(StopsAfter(-1), batch_size=batch_size)
    Checkpoint("key", CPU).remove()
    with pytest.raises(Stopped):
        finish(StopsAfter(steps), batch_size=batch_size)
    found, its_curve = finish(Checkpoint("key", CPU), batch_size=batch_size)
    assert its_curve == curve
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("steps", range(1, 5))
def test_it_goes_on_between_two_steps_of_several_batches(
    prepared: Path, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, _ = finish(StopsAfter(-1), accumulate=2)
    Checkpoint("key", CPU).remove()
    with pytest.raises(Stopped):
        finish(StopsAfter(steps), accumulate=2)
    capsys.readouterr()
    found, _ = finish(Checkpoint("key", CPU), accumulate=2)
    epoch, batch = (steps - 1) // 2 + 1, (2, 3)[(steps - 1) % 2]
    assert f"Going on after batch {batch} of epoch {epoch}, where a run was stopped" in capsys.readouterr().out
    assert all(torch.equal(found[name], value) for name, value in expected.items())


RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
SMALL = ("train.epochs=2", "train.batch_size=3", "train.learning_rate=0.01", "train.threads=1")
SHAPES = {
    "digits": [8, 8, 1],
    "cifar10": [32, 32, 3],
    "cifar100": [32, 32, 3],
    "folder": [32, 32, 3],
    "csv": [32, 32, 3],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_goes_on_in_the_middle_of_an_epoch_with_the_same_bytes(workspace: Path, recipe: str) -> None:
    """After the third of four batches, of seven images in all; of timm with a network for tests."""
    shutil.copytree(ROOT / "recipes", "recipes")
    Path("params.yaml").write_text(overrides.apply(shipped_params(), [*recipes.changes(recipe), *SMALL])[0])
    params, weights = whole.load(), None
    p, shape = params.train, SHAPES.get(params.download.dataset, [28, 28, 1])
    if p.network.startswith(PREFIX):
        p = p.model_copy(update={"network": "timm/test_efficientnet"})
    if p.transfer.weights:
        other = create("test_efficientnet", (32, 32, 3), 3, "small", 0.0, 0.0)
        weights = Weights(Path("weights.pth"), other.state_dict())
    PREPARED.mkdir(parents=True)
    for split, count in (("train", 7), ("validation", 3)):
        images = np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)
        np.save(PREPARED / f"{split}_images.npy", images)
        np.save(PREPARED / f"{split}_labels.npy", np.arange(count) % 2)
    card = Card("made", ["a", "b"], shape, [0.5] * shape[2], [0.3] * shape[2], {}, {}, "crop", {})

    def trained(saved: Checkpoint) -> tuple[str, bytes, Epochs]:
        set_up(p.threads, p.seed)
        training = train.train(train.describe(card, p, weights), p, weights, CPU, Ranks(), saved)
        return digest(training.result()), CURVE.read_bytes(), training.epochs()

    undisturbed = trained(StopsAfter(-1))
    Checkpoint("key", CPU).remove()
    with pytest.raises(Stopped):
        trained(StopsAfter(3))
    torch.manual_seed(1)
    assert trained(Checkpoint("key", CPU)) == undisturbed


def test_another_key_or_number_of_threads_begins_anew(prepared: Path) -> None:
    torch.set_num_threads(1)
    with pytest.raises(Stopped):
        finish(StopsAfter(2))
    assert Checkpoint("key", CPU).load()
    assert Checkpoint("other", CPU).load() is None
    torch.set_num_threads(2)
    assert Checkpoint("key", CPU).load() is None
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("torch.__version__", "0.0"),
        ("numpy.__version__", "0.0"),
        ("tasks.train.version", lambda _: "0.0"),  # of timm
        ("tasks.training.precision._has_bfloat16", lambda _: not torch.cpu._is_avx512_bf16_supported()),
    ],
)
def test_another_machine_with_another_version_or_precision_begins_anew(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, what: str, value: object
) -> None:
    params = write_params(train={"network": "timm/test_resnet", "precision": "auto"}).train
    here = train.key("inputs", params, CPU)
    assert train.key("inputs", params, CPU) == here
    monkeypatch.setattr(what, value)
    assert train.key("inputs", params, CPU) != here


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_one_that_cannot_be_read_is_said_and_left(
    prepared: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = Checkpoint("key", CPU)
    saved.path.parent.mkdir(parents=True)
    saved.path.write_bytes(content)
    assert saved.load() is None
    assert f"{saved.path} cannot be read, so training begins anew" in capsys.readouterr().out


def test_one_that_cannot_be_saved_ends_no_training(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FOLDER.parent.mkdir(exist_ok=True)
    FOLDER.write_text("in the way")
    weights, _ = finish(StopsAfter(-1))
    assert weights
    assert "not saved (File exists); training goes on" in capsys.readouterr().out
    FOLDER.unlink()


def test_saving_takes_a_bounded_share_of_the_time(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, saves = 0.0, []
    monkeypatch.setattr("tasks.training.checkpoint.time.monotonic", lambda: now)

    def state() -> dict[str, object]:
        nonlocal now
        saves.append(now)
        now += 3.0  # s, as a large network takes
        return {}

    saved = Checkpoint("key", CPU)
    while now < 10_000:
        saved.save_if_due(state)
        now += 0.5
    assert len(saves) * 3.0 / now == pytest.approx(checkpoint.MAX_SHARE, rel=0.05)


def test_a_training_that_has_ended_removes_its_own_and_no_other(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINT_EVERY_S", "0")
    saved: list[Path] = []
    save = Checkpoint.save_if_due

    def noted(self: Checkpoint, state: Callable[[], dict[str, object]]) -> None:
        save(self, state)
        saved.extend(FOLDER.glob("*.pth"))

    monkeypatch.setattr(Checkpoint, "save_if_due", noted)
    other = Checkpoint("another training", CPU)
    FOLDER.mkdir(parents=True)
    other.path.write_bytes(b"")
    train.main()
    assert set(saved) - {other.path}, "it had one meanwhile"
    assert list(FOLDER.iterdir()) == [other.path]


def test_a_copy_of_the_project_goes_on_where_the_first_was_stopped(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class StopsThen(Checkpoint):
        def save_if_due(self, state: Callable[[], dict[str, object]]) -> None:
            self._due = 0
            super().save_if_due(state)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "Checkpoint", StopsThen)
        with pytest.raises(KeyboardInterrupt):
            train.main()
    copy = tmp_path / "copy"
    for name in ("params.yaml", "data", ".cache"):
        # Without the times: the copy is of another day.
        if Path(name).is_dir():
            shutil.copytree(name, copy / name, copy_function=shutil.copyfile)
        else:
            copy.mkdir(exist_ok=True)
            shutil.copyfile(name, copy / name)
    monkeypatch.chdir(copy)
    train.main()
    assert "Going on after batch 1 of epoch 1, where a run was stopped" in capsys.readouterr().out


def test_the_environment_says_how_often(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Checkpoint("key", CPU).every_s == 2
    monkeypatch.setenv("CHECKPOINT_EVERY_S", "0.5")
    assert Checkpoint("key", CPU).every_s == 0.5


@pytest.mark.parametrize("text", ["often", "-1", "inf", "nan", ""])
def test_an_interval_that_is_none_is_refused(text: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKPOINT_EVERY_S", text)
    with pytest.raises(StageError, match=f"CHECKPOINT_EVERY_S={text}: it should be a number of seconds"):
        Checkpoint("key", CPU)
