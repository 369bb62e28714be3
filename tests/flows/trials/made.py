"""A search without DVC and training: what a trial comes to is a formula."""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ruamel.yaml import YAML

from flows.trials.checkout import STAGES, Checkout
from flows.trials.loop import Plan
from flows.trials.space import Space
from flows.trials.study import Study
from tasks.harness import section
from tasks.harness.records import write_json
from tasks.harness.section import PARAMS
from tasks.params.search import Range
from tasks.params.train import Train
from tasks.params.whole import Params
from tasks.training.curve import CURVE
from tasks.training.record import TRAINING, Epochs, Validated

EPOCHS = 4
SPACE = {
    "train.learning_rate": Range(low=0.001, high=1.0, log=True),
    "train.batch_size": Range(low=1, high=8),
    "train.augment.flip": Range(choices=[False, True]),
}


def best_at_a_tenth(train: Train) -> list[float]:
    """Return the accuracies of the epochs: the higher, the nearer the learning rate is to 0.1."""
    end = 1 / (1 + abs(train.learning_rate - 0.1))
    return [end * (epoch + 1) / EPOCHS for epoch in range(EPOCHS)]


@dataclass(frozen=True)
class Made(Checkout):
    """A checkout whose trainings come to their end at once; they fail where `comes_to` gives no accuracies."""

    comes_to: Callable[[Train], Sequence[float]] = best_at_a_tenth
    command: tuple[str, ...] = ("true",)
    tried: list[float] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)

    def start(self, log: Path, stages: Iterable[str] = STAGES, force: bool = False) -> "subprocess.Popen[str]":
        train = read(self.folder / PARAMS)
        self.tried.append(train.learning_rate)
        accuracies = self.comes_to(train)
        log.write_text("Running stage 'train':\ntrain: it does not learn\nERROR: failed to reproduce 'train'\n")
        (self.folder / CURVE).write_text(
            "epoch,validation_accuracy\n" + "".join(f"{epoch},{a}\n" for epoch, a in enumerate(accuracies, 1))
        )
        if accuracies:
            last = Validated(len(accuracies), accuracies[-1], 0.5, [])
            write_json(self.folder / TRAINING, asdict(Epochs("last", last, last)))
        words = self.command if accuracies else ("false",)
        process = subprocess.Popen(words, stdin=subprocess.PIPE, text=True, process_group=0)
        if words in (("true",), ("false",)):
            process.wait()
        return process

    def save(self, name: str, accuracy: float) -> str | None:
        self.saved.append(name)
        return None


def read(params: Path) -> Train:
    return section.parse(Params, YAML(typ="safe").load(params.read_text()), str(params)).train


def made_checkout(comes_to: Callable[[Train], Sequence[float]] = best_at_a_tenth, *command: str) -> Made:
    """Make one in the working directory."""
    folder = Path("checkout")
    (folder / "reports").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    return Made(folder, folder, folder / "checkpoints", b"", comes_to, command or ("true",))


def made_space(**ranges: Range) -> Space:
    return Space(ranges or SPACE, PARAMS.read_text())


def made_plan(trials: int) -> Plan:
    Path("study").mkdir(exist_ok=True)
    return Plan("abc", Path("study"), PARAMS.read_text(), trials, EPOCHS, 60)


def made_study(space: Space | None = None, seed: int = 0) -> Study:
    Path("study").mkdir(exist_ok=True)
    return Study(Path("study/journal.log"), space or made_space(), seed, warm_up=2)
