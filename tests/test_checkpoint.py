"""A training that was stopped goes on to the bytes of one that was not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tasks import checkpoint, train
from tasks.checkpoint import FOLDER, Checkpoint
from tasks.classifier import Classifier
from tasks.determinism import set_up
from tasks.prepared import Split
from tests.conftest import write_params

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


def begin() -> tuple[train.Training, int]:
    """Begin a training whose every step draws random numbers, and whose optimiser has a state of its own."""
    p = write_params(train={"epochs": 3, "batch_size": 2, "learning_rate": 0.05}).train
    set_up(p.threads, p.seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10))
    training = train.Training(Classifier(network, [0.0], [1.0]), Split.read("train"), p, CPU)
    training.optimizer = torch.optim.SGD(training.classifier.parameters(), lr=p.learning_rate, momentum=0.9)
    return training, p.epochs


def finish(saved: Checkpoint) -> tuple[dict[str, Tensor], bytes]:
    training, epochs = begin()
    curve = train.LearningCurve()
    train.fit(training, Split.read("validation"), epochs, curve, saved)
    return training.classifier.state_dict(), curve.path.read_bytes()


@pytest.mark.parametrize("steps", range(1, 9))  # three batches an epoch
def test_it_goes_on_at_any_step_with_the_same_bytes(
    prepared: Path, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, curve = finish(StopsAfter(-1))
    Checkpoint.clear()
    with pytest.raises(Stopped):
        finish(StopsAfter(steps))
    torch.manual_seed(steps)  # another process has another state
    capsys.readouterr()
    found, its_curve = finish(Checkpoint("key", CPU))
    epoch, batch = (steps - 1) // 3 + 1, (steps - 1) % 3 + 1
    assert f"Going on after batch {batch} of epoch {epoch}, where a run was stopped" in capsys.readouterr().out
    assert its_curve == curve
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_another_key_threads_or_version_begins_anew(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stopped):
        finish(StopsAfter(2))
    assert Checkpoint("key", CPU).load()
    assert Checkpoint("other", CPU).load() is None
    torch.set_num_threads(2)
    assert Checkpoint("key", CPU).load() is None
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert Checkpoint("key", CPU).load() is None


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
    monkeypatch.setattr("tasks.checkpoint.time.monotonic", lambda: now)

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


def test_a_training_that_has_ended_leaves_none(trained: Path) -> None:
    assert not FOLDER.exists()
