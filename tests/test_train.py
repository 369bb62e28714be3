"""train: the loop against a plain one, what it prints, and that it gives the same bytes."""

import json
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.transforms import Normalize, ToTensor

from tasks import classifier, params, train
from tasks.batches import BatchIndices, batches, predict
from tasks.checkpoint import Checkpoint
from tasks.classifier import Classifier
from tasks.determinism import physical_cores, set_up
from tasks.prepared import Card, Split
from tasks.stage import StageError
from tests import quickstart
from tests.conftest import write_params

CPU = torch.device("cpu")
DEVICE = torch.accelerator.current_accelerator(check_available=True) or CPU


def fit(classifier: Classifier, p: params.Train) -> None:
    """Train on the prepared images of the workspace."""
    training = train.Training(classifier, Split.read("train"), p, CPU)
    train.fit(training, Split.read("validation"), p.epochs, train.LearningCurve(), Checkpoint("key", CPU))


def test_the_state_dict_loads_into_the_quickstarts_class(trained: Path) -> None:
    model = quickstart.NeuralNetwork()
    model.load_state_dict(torch.load("models/model.pth", weights_only=True))
    test = Split.read("test")
    x = torch.stack([ToTensor()(image) for image in test.images])
    ours, _ = classifier.load()
    with torch.no_grad():
        assert torch.equal(model(x), ours(torch.from_numpy(test.images)))


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


def test_an_epoch_sees_every_image_once_in_a_new_order() -> None:
    indices = BatchIndices(10, 4, torch.Generator().manual_seed(0))
    first, second = ([batch.tolist() for batch in indices] for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert len(indices) == 3
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second


def test_without_shuffling_batches_come_in_order(prepared: Path) -> None:
    test = Split.read("test")
    loaded = list(batches(test, BatchIndices(8, 3), CPU))
    assert torch.equal(torch.cat([images for images, _ in loaded]), torch.from_numpy(test.images))
    assert torch.equal(torch.cat([labels for _, labels in loaded]), torch.from_numpy(test.labels))


def test_predict_leaves_no_dropout_on(prepared: Path) -> None:
    model = nn.Sequential(nn.Dropout(0.9), Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]))
    model[0] = nn.Identity()
    expected = predict(model, Split.read("test"), 3, CPU)
    dropping = nn.Sequential(model[1], nn.Dropout(0.9))
    assert torch.equal(predict(dropping.train(), Split.read("test"), 3, CPU), expected)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(trained: Path) -> None:
    first = [(trained / name).read_bytes() for name in ("model.pth", "model.json")]
    curve = Path("reports/learning_curve.csv").read_bytes()
    train.main()
    assert [(trained / name).read_bytes() for name in ("model.pth", "model.json")] == first
    assert Path("reports/learning_curve.csv").read_bytes() == curve
    write_params(train={"seed": 1})
    train.main()
    assert (trained / "model.pth").read_bytes() != first[0]


def test_model_json_says_what_rebuilds_the_network_and_what_it_was_trained_on(trained: Path) -> None:
    description = json.loads((trained / "model.json").read_text())
    card = Card.read()
    assert description["schema_version"] == 1
    assert (description["network"], description["image_shape"]) == ("NeuralNetwork", [28, 28, 1])
    assert description["class_names"] == card.class_names
    assert (description["mean"], description["std"]) == ([0.0], [1.0])
    assert description["dataset"]["sources"] == card.sources
    assert description["training"] == params.load().train.model_dump()
    assert (description["device"], description["threads"]) == (str(DEVICE), 1)
    assert description["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert description["versions"]["torch"] == torch.__version__


def test_normalize_uses_the_training_images_statistics(prepared: Path) -> None:
    write_params(train={"normalize": "fitted"})
    train.main()
    card = Card.read()
    model, description = classifier.load()
    assert (description.mean, description.std) == (card.mean, card.std)
    images = torch.from_numpy(Split.read("train").images)
    x = (images.permute(0, 3, 1, 2) / 255 - card.mean[0]) / card.std[0]
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.network(x))
    assert abs(x.mean()) < 1e-6


def test_half_is_the_tutorials_normalize(prepared: Path) -> None:
    write_params(train={"normalize": "half"})
    train.main()
    model, _ = classifier.load()
    images = torch.from_numpy(Split.read("train").images)
    x = torch.stack([Normalize(0.5, 0.5)(ToTensor()(image.numpy())) for image in images])
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.network(x))


def test_off_a_terminal_it_prints_the_quickstarts_lines(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(train={"epochs": 2, "batch_size": 2})
    train.LINE_EVERY, every = 2, train.LINE_EVERY
    try:
        train.main()
    finally:
        train.LINE_EVERY = every
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Using {DEVICE} device, 1 CPU threads"
    assert "(linear_relu_stack): Sequential(" in lines[3]
    assert "669,706 parameters" in lines
    progress = [line.partition("  ")[2] for line in lines if line.startswith("loss: ")]
    assert progress == ["[    2/    6]", "[    6/    6]"] * 2
    assert len([line for line in lines if line.startswith("Validation: accuracy ")]) == 2
    assert lines[-1] == "Saved PyTorch model state to models/model.pth"


def test_the_learning_curve_has_a_row_an_epoch_as_the_run_goes(workspace: Path) -> None:
    curve = train.LearningCurve()
    curve.add(1, 2.25, 2.125, 0.5)
    assert curve.path.read_text().splitlines() == [
        "epoch,train_loss,validation_loss,validation_accuracy",
        "1,2.250000,2.125000,0.500000",
    ]


def test_a_loss_that_is_not_finite_ends_the_stage(prepared: Path) -> None:
    p = params.load().train.model_copy(update={"learning_rate": 1e30})
    model = Classifier(quickstart.NeuralNetwork(), [0.0], [1.0])
    with pytest.raises(StageError, match=r"^the loss is (nan|inf): train.learning_rate = 1e\+30 is too high"):
        fit(model, p)


def test_threads_are_the_physical_cores_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    set_up(None)
    assert torch.get_num_threads() == physical_cores()
    monkeypatch.setattr("psutil.cpu_count", lambda logical: None)
    assert physical_cores() >= 1
    set_up(1)
    assert torch.get_num_threads() == 1


def test_everything_that_makes_results_differ_is_off() -> None:
    set_up(1)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.benchmark
