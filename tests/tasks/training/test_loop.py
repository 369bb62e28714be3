"""The training loop, compared with a plain one."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.transforms import ToTensor

from tasks import train
from tasks.harness import section
from tasks.harness.errors import StageError
from tasks.model.classifier import Classifier
from tasks.model.determinism import set_up
from tasks.params.train import Train
from tasks.prepared import Split
from tasks.training import loop
from tasks.training.checkpoint import Checkpoint
from tasks.training.curve import LearningCurve
from tasks.training.record import Validated
from tasks.training.state import Training
from tests.support import quickstart
from tests.support.params import ROOT, write_params

CPU = torch.device("cpu")
FIRST = "linear_relu_stack.0.weight"
DEVICE = torch.accelerator.current_accelerator(check_available=True) or CPU


def fit(classifier: Classifier, p: Train) -> Training:
    """Train on the prepared images of the workspace."""
    training = Training(classifier, Split.read("train"), 10, p, CPU)
    loop.fit(training, Split.read("validation"), LearningCurve(), Checkpoint("key", CPU))
    return training


def test_the_loop_computes_what_a_plain_loop_computes(prepared: Path) -> None:
    p = write_params(train={"epochs": 3, "batch_size": 2}).train
    set_up(p.threads, p.seed)
    split = Split.read("train")
    reference = quickstart.NeuralNetwork()
    ours = Classifier(quickstart.NeuralNetwork(), [0.0], [1.0])
    ours.network.load_state_dict(reference.state_dict())
    fit(ours, p)

    images, labels = torch.stack([ToTensor()(image) for image in split.images]), torch.from_numpy(split.labels)
    generator = torch.Generator().manual_seed(p.seed)
    optimizer = torch.optim.SGD(reference.parameters(), lr=p.learning_rate)
    for _ in range(p.epochs):
        for chosen in torch.split(torch.randperm(len(labels), generator=generator), p.batch_size):
            loss = nn.CrossEntropyLoss()(reference(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for name, expected in reference.state_dict().items():
        assert torch.equal(ours.network.state_dict()[name], expected), name


def test_the_network_trains_in_training_mode(prepared: Path) -> None:
    modes = []
    model = Classifier(quickstart.NeuralNetwork(), [0.0], [1.0])
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    p = write_params(train={"epochs": 2, "batch_size": 3}).train
    fit(model, p)
    assert modes == [True, True, False] * 2  # two batches of three, then the validation split


def test_off_a_terminal_it_prints_the_quickstarts_lines(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(train={"epochs": 2, "batch_size": 2})
    monkeypatch.setattr(loop, "LINE_EVERY", 2)
    train.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Using {DEVICE} device, 1 CPU threads"
    assert "(linear_relu_stack): Sequential(" in lines[3]
    assert "669,706 parameters" in lines
    progress = [line.partition("  ")[2] for line in lines if line.startswith("loss: ")]
    assert progress == ["[    2/    6]", "[    6/    6]"] * 2
    assert len([line for line in lines if line.startswith("Validation: accuracy ")]) == 2
    assert lines[-1] == "Saved PyTorch model state to models/model.pth"


def test_a_loss_that_is_not_finite_ends_the_stage(prepared: Path) -> None:
    p = section.load(Train).model_copy(update={"learning_rate": 1e30})
    model = Classifier(quickstart.NeuralNetwork(), [0.0], [1.0])
    with pytest.raises(
        StageError,
        match=r"^the loss is (nan|inf) after batch 2 of epoch 1, with the learning rate 1e\+30: try a lower",
    ):
        fit(model, p)


@pytest.mark.parametrize(("every_s", "bad"), [(1e9, 2), (1e9, 120), (0, 2)])
def test_the_first_loss_that_is_not_finite_is_told(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, every_s: float, bad: int
) -> None:
    """Of 150 batches, with a learning rate that falls; a checkpoint looks, too, and holds no such training."""
    p = write_params(train={"batch_size": 2, "epochs": 1, "schedule": "one_cycle", "warm_up": 0.0}).train
    split = Split.read("train")
    many = Split(split.images[[0] * 300], split.labels[[0] * 300])
    network = quickstart.NeuralNetwork()
    calls = iter(range(1, 151))

    def broken(_: object, __: object, logits: torch.Tensor) -> torch.Tensor:
        return logits * (float("inf") if next(calls) == bad else 1)

    network.register_forward_hook(broken)
    training = Training(Classifier(network, [0.0], [1.0]), many, 10, p, CPU)
    monkeypatch.setenv("CHECKPOINT_EVERY_S", str(every_s))
    saved = Checkpoint("key", CPU)
    rate = p.learning_rate * (1 - (bad - 1) / 150)
    with pytest.raises(StageError, match=f"^the loss is nan after batch {bad} of epoch 1, .* rate {rate:.3g}: try"):
        loop.fit(training, Split.read("validation"), LearningCurve(), saved)
    state = saved.load()
    assert (state["training"]["batch"] if state else None) == (bad - 1 if every_s == 0 else None)


def weights(p: Train) -> dict[str, torch.Tensor]:
    set_up(p.threads, p.seed)
    return fit(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), p).result()


def test_batches_of_a_step_are_one_large_batch(prepared: Path) -> None:
    """Of six images: four and two, and within the four, two batches."""
    small = weights(write_params(train={"batch_size": 2, "accumulate": 2, "learning_rate": 0.1}).train)
    large = weights(write_params(train={"batch_size": 4, "accumulate": 1, "learning_rate": 0.1}).train)
    for name, expected in large.items():
        torch.testing.assert_close(small[name], expected, rtol=1e-5, atol=1e-6)


def test_the_average_of_the_weights_is_that_of_all_steps(prepared: Path) -> None:
    seen: list[torch.Tensor] = []
    network = quickstart.NeuralNetwork()
    p = write_params(train={"epochs": 2, "batch_size": 3, "ema_decay": 0.9, "learning_rate": 0.5}).train
    training = Training(Classifier(network, [0.0], [1.0]), Split.read("train"), 10, p, CPU)
    training.optimizer.register_step_post_hook(lambda *_: seen.append(network.state_dict()[FIRST].clone()))
    loop.fit(training, Split.read("validation"), LearningCurve(), Checkpoint("key", CPU))
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.9 * expected + 0.1 * weight
    assert len(seen) == 4
    torch.testing.assert_close(training.result()[FIRST], expected)


def test_the_weights_of_the_best_epoch_are_kept_if_asked_for(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after: list[torch.Tensor] = []
    accuracies = iter([(0.5, 1.0), (0.75, 2.0), (0.75, 1.0), (0.25, 0.5)])

    def validated(classifier: Classifier, *_: object) -> Validated:
        after.append(classifier.network.state_dict()[FIRST].clone())
        return Validated(len(after), *next(accuracies), [[1]])

    monkeypatch.setattr("tasks.training.state.validate", validated)
    p = write_params(train={"epochs": 4, "batch_size": 3, "keep": "best", "learning_rate": 0.5}).train
    training = fit(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), p)
    assert torch.equal(training.result()[FIRST], after[2])  # as right as the second, less loss
    assert not torch.equal(after[2], after[3])
    epochs = training.epochs()
    assert (epochs.kept, epochs.best.epoch, epochs.last.epoch) == ("best", 3, 4)


def test_it_ends_when_no_epoch_was_better_for_long_enough(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.75, 0.75, 0.5, 0.9])
    monkeypatch.setattr(
        "tasks.training.state.validate", lambda *given: Validated(given[3], next(accuracies), 1.0, [[1]])
    )
    p = write_params(train={"epochs": 5, "patience": 2, "keep": "best"}).train
    training = fit(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), p)
    assert (training.epoch, training.epochs().best.epoch) == (4, 2)


def test_a_time_limit_ends_it_within_an_epoch_the_learning_rate_at_its_end(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch takes six seconds, a minute is allowed, and the schedule has come to its end by then."""
    now, rates = 0.0, []
    monkeypatch.setattr("tasks.training.clock.time.monotonic", lambda: now)
    p = write_params(
        train={"epochs": 100, "batch_size": 2, "max_minutes": 1.0, "schedule": "one_cycle", "warm_up": 0.0}
    ).train
    training = Training(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), Split.read("train"), 10, p, CPU)

    def passes(*_: object) -> None:
        nonlocal now
        rates.append(training.optimizer.param_groups[0]["lr"])
        now += 6.0

    training.optimizer.register_step_post_hook(passes)
    loop.fit(training, Split.read("validation"), LearningCurve(), Checkpoint("key", CPU))
    assert (training.epoch, training.batch) == (4, 1)  # of three batches each
    assert rates == pytest.approx([p.learning_rate * (1 - step / 10) for step in range(10)])


@pytest.mark.parametrize(
    ("batch_size", "validation_s", "stopped_after", "end"),
    [(2, 20.0, None, (1, 3, 58.0)), (1, 18.0, None, (1, 4, 60.0)), (1, 18.0, 1, (1, 4, 60.0))],
)
def test_the_time_that_validations_take_counts(
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    validation_s: float,
    stopped_after: int | None,
    end: tuple[int, int, float],
) -> None:
    """Six images in batches that take 6 s, in a minute, which begins with a validation to see how long that takes."""
    now = 0.0

    class Stops(Checkpoint):
        def save_if_due(self, state: Callable[[], dict[str, object]]) -> None:
            self._due = 0
            super().save_if_due(state)
            if training.step_number == stopped_after:
                raise KeyboardInterrupt

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    def validated(*given: object) -> Validated:
        passes(validation_s)
        return Validated(int(str(given[3])), 0.5, 1.0, [[1]])

    monkeypatch.setattr("tasks.training.clock.time.monotonic", lambda: now)
    monkeypatch.setattr("tasks.training.state.validate", validated)
    p = write_params(train={"epochs": 100, "batch_size": batch_size, "max_minutes": 1.0}).train
    for run in range(2 if stopped_after else 1):
        training = Training(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), Split.read("train"), 10, p, CPU)
        training.optimizer.register_step_post_hook(lambda *_: passes(6.0))
        with pytest.raises(KeyboardInterrupt) if stopped_after and run == 0 else nullcontext():
            loop.fit(training, Split.read("validation"), LearningCurve(), Stops("key", CPU))
    assert (training.epoch, training.batch, now) == end


def test_a_limit_that_validations_alone_take_up_is_refused(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def validated(*_: object) -> Validated:
        nonlocal now
        now += 30.0
        return Validated(1, 0.5, 1.0, [[1]])

    monkeypatch.setattr("tasks.training.clock.time.monotonic", lambda: now)
    monkeypatch.setattr("tasks.training.state.validate", validated)
    p = write_params(train={"max_minutes": 1.0}).train
    said = r"^train.max_minutes = 1 leaves no time to train: .* one of 2 images takes 30 s$"
    with pytest.raises(StageError, match=said):
        fit(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), p)


def test_a_batch_that_the_memory_does_not_hold_says_which_would(prepared: Path) -> None:
    class Large(quickstart.NeuralNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory")
            logits: torch.Tensor = super().forward(x)
            return logits

    p = write_params(train={"batch_size": 4}).train
    with pytest.raises(
        StageError,
        match=r"^out of memory on cpu in batch 1 of epoch 1 with train.batch_size = 4: 1 fits; "
        r"with train.accumulate: 4 a step is still of 4 images$",
    ):
        fit(Classifier(Large(), [0.0], [1.0]), p)


class Normalised(nn.Module):
    """Batch norm of one value of each channel an image, as at the end of the shipped network."""

    def __init__(self, most: int = 8) -> None:
        super().__init__()
        self.most = most  # images that the memory holds
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise MemoryError
        logits: torch.Tensor = self.layers(x)
        return logits


def test_no_batch_at_the_end_of_an_epoch_is_too_small_for_batch_norm(prepared: Path) -> None:
    p = write_params(train={"batch_size": 3}).train
    split = Split.read("train")
    training = Training(Classifier(Normalised(), [0.0], [1.0]), Split(split.images[:4], split.labels[:4]), 10, p, CPU)
    loop.fit(training, Split.read("validation"), LearningCurve(), Checkpoint("key", CPU))
    assert training.batch == len(training.indices) == 1


def test_batches_that_batch_norm_does_not_take_are_refused(prepared: Path) -> None:
    p = write_params(train={"batch_size": 1, "network": "cnn"}).train
    with pytest.raises(
        StageError,
        match=r"^train.batch_size = 1 gives a process 1 of the 6 training images at a time, and train.network = cnn "
        r"normalises by .*: choose train.batch_size = 2 or more$",
    ):
        fit(Classifier(Normalised(), [0.0], [1.0]), p)


@pytest.mark.parametrize(
    ("most", "tried", "told"),
    [(4, [9, 5, 3], "2 fits; with train.accumulate: 5 a"), (1, [9, 5, 3, 1], "no smaller one")],
)
def test_no_batch_is_advised_that_batch_norm_does_not_take_or_that_may_become_too_large(
    prepared: Path, most: int, tried: list[int], told: str
) -> None:
    """Of batches of 9, 4 and 2 of nine images the last one gets the image that is left."""
    sizes: list[int] = []
    network = Normalised(most)
    network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    split = Split.read("train")
    nine = Split(split.images[[0] * 9], split.labels[[0] * 9])
    p = write_params(train={"batch_size": 9}).train
    training = Training(Classifier(network, [0.0], [1.0]), nine, 10, p, CPU)
    with pytest.raises(StageError, match=f"train.batch_size = 9: {told}"):
        loop.fit(training, Split.read("validation"), LearningCurve(), Checkpoint("key", CPU))
    assert sizes == tried


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("tasks.training.state.augment", " in batch 1 of epoch 1 with train.batch_size = 4: 2 fits"),
        ("torch.optim.SGD.step", " in batch 1 of epoch 1 with train.batch_size = 4: no smaller one fits: choose"),
        ("tasks.training.state.validate", ", which does not hold 4 images in the validation of epoch 1: choose a"),
        (
            "tasks.training.state.average",
            ", which does not hold what its training takes: choose a smaller train.network",
        ),
        ("tasks.train.build", ", which does not hold the network: choose a smaller train.network"),
    ],
)
def test_whatever_the_memory_does_not_hold_is_told(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, what: str, told: str
) -> None:
    write_params(train={"ema_decay": 0.5})

    def too_large(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(what, too_large)
    with pytest.raises(SystemExit, match=f"^train: out of memory on {DEVICE}{told}"):
        train.main()


def test_a_validation_takes_batches_no_larger_than_the_training(prepared: Path) -> None:
    sizes: list[int] = []
    network = quickstart.NeuralNetwork()
    network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    fit(Classifier(network, [0.0], [1.0]), write_params(train={"batch_size": 1, "epochs": 1}).train)
    assert sizes == [1] * 8


def test_another_error_of_a_step_is_no_lack_of_memory(prepared: Path) -> None:
    class Broken(quickstart.NeuralNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fit(Classifier(Broken(), [0.0], [1.0]), write_params().train)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
@pytest.mark.parametrize(
    ("channels", "told"),
    [
        ([4096], r"train: out of memory on cpu in batch 1 of epoch 1 with train.batch_size = 6: [13] fits; with"),
        ([4096, 4096], r"train: out of memory on cpu, which does not hold the network: choose a smaller train.network"),
    ],
)
def test_memory_that_really_is_too_small_is_told_so(prepared: Path, channels: list[int], told: str) -> None:
    """The process may have as much as it has after its imports, and 250 MB more."""
    write_params(
        train={
            "network": "cnn",
            "cnn": {"channels": channels, "stride": 1, "convolutions": 1, "whitening": 0},
            "batch_size": 6,
        }
    )
    code = """
import resource, psutil, torch._dynamo, torch.distributed.fsdp
from tasks import train
most = psutil.Process().memory_info().vms + (250 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
train.main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run((sys.executable, "-c", code), env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert re.match(told, answer.stderr), answer.stderr


def test_steps_in_bfloat16_leave_weights_and_validation_in_float32(prepared: Path) -> None:
    full = weights(write_params(train={"learning_rate": 0.1}).train)
    half = weights(write_params(train={"learning_rate": 0.1, "precision": "bfloat16"}).train)
    for name, expected in full.items():
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name], expected, rtol=0, atol=1e-2)
    assert any(not torch.equal(half[name], expected) for name, expected in full.items())


def test_float16_needs_a_gpu(prepared: Path) -> None:
    p = write_params(train={"precision": "float16"}).train
    with pytest.raises(StageError, match=r"^train.precision = float16: a CPU has no arithmetic for it; choose auto"):
        fit(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), p)
