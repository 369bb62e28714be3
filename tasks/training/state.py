"""A training as far as it has come: what is stepped, saved and restored together."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tasks.harness.errors import StageError
from tasks.model.batches import BatchIndices, batches
from tasks.model.classifier import Classifier
from tasks.params.train import Train
from tasks.prepared import Split
from tasks.training import memory, precision
from tasks.training.augmentation import augment
from tasks.training.clock import Clock, Pace
from tasks.training.losses import Losses
from tasks.training.optimizers import learning_rate, optimizer
from tasks.training.ranks import Ranks
from tasks.training.record import Epochs, Usage, Validated
from tasks.training.validation import LARGEST, validate

ALONE = Ranks()
SEEDS_TOGETHER = 256  # one alone takes numpy ten times as long, with cold caches


class Training:
    """The state of a training, and its steps.

    Args:
        ranks: the processes that take part; each is to be given the same classifier, split and parameters.
    """

    def __init__(
        self,
        classifier: Classifier,
        split: Split,
        classes: int,
        params: Train,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.classifier = classifier
        self.classes = classes
        self.params = params
        self.device = device
        self.ranks = ranks
        self.model = ranks.parallel(classifier)
        self.averaged = average(classifier, params.ema_decay) if params.ema_decay else None
        self.loss = nn.CrossEntropyLoss(label_smoothing=params.label_smoothing)
        self.optimizer = optimizer(classifier.network, params)
        self.dtype = precision.resolve(params.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.generator = torch.Generator().manual_seed(params.seed)
        self.order = self.generator.get_state()  # before it shuffled for this epoch
        least = 2 * ranks.size  # batch norm refuses an image that is alone, where its map has a single pixel left
        self.indices = BatchIndices(len(split.labels), params.batch_size, self.generator, ranks.rank, ranks.size, least)
        self.loader = batches(split, self.indices, device)
        self.epoch = 1
        self.batch = 0  # how many of this epoch are done
        self.total_loss = torch.zeros((), device=device)  # over this process's images of this epoch so far
        self.losses = Losses(params.learning_rate)
        self.last: Validated | None = None  # of the first process, as is the best
        self.best: Validated | None = None
        self.best_weights: dict[str, Tensor] = {}  # where they are to be kept
        self.clock = Clock(params.max_minutes)
        self.pace = Pace(params.batch_size, 0)
        self.progress = 0.0  # in batches: those that are done, or more, if the time goes faster

    @property
    def trained(self) -> Classifier:
        """The classifier as it would be used now: with its weights, or with their average."""
        if self.averaged is None:
            return self.classifier
        return cast(Classifier, self.averaged.module)

    @property
    def steps(self) -> int:
        """How many batches all epochs have."""
        return self.params.epochs * len(self.indices)

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or the time is up."""
        return self.progress >= self.steps

    @property
    def between_steps(self) -> bool:
        """Whether no gradient waits for the other batches of its step, which `state` does not hold."""
        return self.batch % self.params.accumulate == 0 or self.batch == len(self.indices)

    @property
    def step_number(self) -> int:
        """How many batches are done."""
        return (self.epoch - 1) * len(self.indices) + self.batch

    def state(self) -> dict[str, Any]:
        """Return all that decides the steps to come, as tensors and plain types.

        Raises:
            StageError: the loss is no longer a finite number.
        """
        self.losses.examine(ALONE)  # what is saved can be gone on with
        return {
            "network": self.classifier.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "order": self.order,
            "epoch": self.epoch,
            "batch": self.batch,
            "total_loss": self.total_loss,
            "best": asdict(self.best) if self.best else None,
            "best_weights": self.best_weights,
            "seconds": self.clock.seconds,
            "validation_s": self.clock.validation_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned; the next step is the one that followed it."""
        self.classifier.network.load_state_dict(state["network"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["order"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.total_loss = state["total_loss"].to(self.device)
        self.best = Validated(**state["best"]) if state["best"] else None
        self.best_weights = state["best_weights"]
        self.clock.go_on(state["seconds"], state["validation_s"])
        self.measure_progress()
        self.pace = Pace(self.params.batch_size, self.step_number)

    def rest_of_epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of the batches of this epoch that are not done yet, on the device."""
        self.order = self.generator.get_state()
        self.indices.first = self.batch
        for images, labels in self.loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from a batch, `uint8 [N, H, W, C]` and `int64 [N]`, and return the sum of the losses of its images.

        The optimiser takes a step after each batch, or after as many as `train.accumulate` says.

        Raises:
            StageError: the batch is too large for the memory, or too small for the network.
        """
        self.draw_anew()
        first = self.batch - self.batch % self.params.accumulate
        last = min(first + self.params.accumulate, len(self.indices)) - 1
        together = sum(map(self.indices.images, range(first, last + 1)))  # images to a step of the optimiser
        mine = self.indices.mine(self.batch)
        try:
            augmented, targets = augment(images, labels, self.params.augment, self.classes)
            # What each process gives, and each batch of a step, comes to the mean over all images of that step.
            loss = self.backward(augmented, targets, mine * self.ranks.size / together, self.batch == last)
            if self.batch == last:
                self.update()
        except (RuntimeError, MemoryError) as error:
            raise memory.advice(error, self, images, labels) from None
        except ValueError as error:
            raise self.too_small(error) from None
        self.losses.add(total := loss * mine, self.epoch, self.batch + 1, self.rate)
        return total

    def too_small(self, error: ValueError) -> Exception:
        """Return a StageError that says that batch norm takes no batch as small as this; another error as it is."""
        if "Expected more than 1 value per channel" not in str(error):
            return error
        return StageError(
            f"train.batch_size = {self.params.batch_size} gives a process {self.indices.mine(self.batch)} of the "
            f"{self.indices.size} training images at a time, and train.network = {self.params.network} normalises by "
            f"what a batch has of each channel, which takes 2: choose train.batch_size = {self.indices.least} or more"
        )

    def backward(self, images: Tensor, targets: Tensor, share: float, last: bool) -> Tensor:
        """Add this share of the gradient of the average loss to what the parameters have, and return that loss.

        Args:
            last: of the batches of a step, to which processes leave the exchange of their gradients.
        """
        model = self.model
        alone = model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
        with alone:
            loss = self.average_loss(model, images, targets)
            part = loss if share == 1 else loss * share  # a product less to go back through
            self.scaler.scale(part).backward()  # type: ignore[no-untyped-call]  # torch
        return loss.detach()

    def average_loss(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """Compute the average loss of images in the precision of the training."""
        with nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype):
            loss: Tensor = self.loss(model(images), targets)
        return loss

    def draw_anew(self) -> None:
        """Seed torch's generators for this batch alone, so that a training can be taken up at any of them.

        Those that it uses: `torch.manual_seed` keeps a stack trace for each kind of device that is not in use.
        """
        block, number = divmod(self.step_number, SEEDS_TOGETHER)
        seed = seeds(self.params.seed, self.ranks.rank, block)[number]
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def update(self) -> None:
        """Let the optimiser take its step, with the learning rate of now."""
        rate = learning_rate(self.progress, self.steps, self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        if self.params.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.classifier.parameters(), self.params.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.averaged:
            self.averaged.update_parameters(self.classifier)

    def advance(self) -> None:
        """Count a batch as done."""
        self.batch += 1
        self.measure_progress()

    def measure_progress(self) -> None:
        """See how far the training is, by the batches and by the first process's clock."""
        share = self.clock.share()
        self.progress = self.step_number
        if share is not None:
            self.progress = self.ranks.agreed(max(self.step_number, share * self.steps), self.device)

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def measure(self, validation: Split) -> Validated:
        """Measure the classifier as it is, and how long that takes.

        Raises:
            StageError: it is too large for the memory.
        """
        started = time.monotonic()
        size = min(-(-self.params.batch_size // self.ranks.size), LARGEST)
        what = f"{size} images in the validation of epoch {self.epoch}: choose a smaller train.batch_size"
        with memory.holding(what, self.device):
            validated = validate(self.trained, validation, self.classes, self.epoch, self.device, size)
        self.clock.validation_s = time.monotonic() - started
        return validated

    def validate(self, validation: Split) -> Validated:
        """Measure the classifier as it is after this epoch, which may be the best so far.

        Raises:
            StageError: the loss is no finite number; see `measure`.
        """
        self.last = last = self.measure(validation)
        self.losses.finite(last.loss, self.epoch, self.batch, self.rate)
        if self.best is None or last.goodness > self.best.goodness:
            self.best = last
            if self.params.keep == "best":
                state_dict = self.trained.network.state_dict()
                self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in state_dict.items()}
        return last

    def gives_up(self) -> bool:
        """Tell whether no epoch was better than the best for as many as `train.patience` allows."""
        patience, best = self.params.patience, self.best
        if patience is None:
            return False
        return bool(self.ranks.agreed(best is not None and self.epoch - best.epoch >= patience, self.device))

    def result(self) -> dict[str, Tensor]:
        """Return the weights to be used: those of the best epoch where they are kept, else those of now."""
        return self.best_weights or self.trained.network.state_dict()

    def speed(self) -> str:
        """Describe how fast this process trains, and how long it will take."""
        return self.pace(self.step_number, self.steps - self.step_number, self.clock)

    def usage(self) -> Usage:
        """Return what the training took so far, over all processes but for the memory."""
        host, gpu = memory.peak(self.device)
        speed = self.pace.images_per_s(self.step_number)
        return Usage(round(speed, 1), round(host / 1e6, 1), None if gpu is None else round(gpu / 1e6, 1))

    def epochs(self) -> Epochs:
        """Return the contents of training.json, once there was an epoch."""
        assert self.best
        assert self.last
        return Epochs(self.params.keep, self.best, self.last)


@lru_cache(maxsize=1)
def seeds(seed: int, rank: int, block: int) -> list[int]:
    """Return the seeds of a block of batches, those of a training and of one of its processes."""
    steps = range(block * SEEDS_TOGETHER, (block + 1) * SEEDS_TOGETHER)
    return [int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]) for step in steps]


def average(classifier: Classifier, decay: float) -> AveragedModel:
    """Build the exponential moving average of all weights and statistics, in which a step's part decays so by step.

    Source: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; torch.optim.swa_utils.
    """
    ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch
    return AveragedModel(classifier, multi_avg_fn=ema, use_buffers=True)
