"""The training loop, compared with a plain one."""

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
from tests.support import quickstart
from tests.support.params import write_params

CPU = torch.device("cpu")
DEVICE = torch.accelerator.current_accelerator(check_available=True) or CPU


def fit(classifier: Classifier, p: Train) -> None:
    """Train on the prepared images of the workspace."""
    training = loop.Training(classifier, Split.read("train"), 10, p, CPU)
    loop.fit(training, Split.read("validation"), LearningCurve(), Checkpoint("key", CPU))


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
