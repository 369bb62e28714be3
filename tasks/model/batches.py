"""Batches of a split, each fetched whole: no Python work per image."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from tasks.prepared import Split


class Indexed(Dataset[tuple[Tensor, Tensor]]):
    """A split indexed by a whole batch: `int64 [n]` gives images `uint8 [n, H, W, C]` and labels `int64 [n]`."""

    def __init__(self, split: Split) -> None:
        self.images = torch.from_numpy(split.images)
        self.labels = torch.from_numpy(split.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)


class BatchIndices(Sampler[Tensor]):
    """The indices of each batch, `int64 [n]`: in order, or shuffled anew in each pass by `generator`.

    `first` is the batch with which the next pass begins; passes after it begin at 0 again.

    Args:
        rank: of `ranks` processes that share each batch; where it has too few images for all, some get one that
            `mine` does not count.
        least: fewer images at the end of a pass are no batch of their own, but part of the one before.
    """

    first = 0

    def __init__(
        self,
        size: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        rank: int = 0,
        ranks: int = 1,
        least: int = 1,
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.generator = generator
        self.rank = rank
        self.ranks = ranks
        self.least = least

    def __iter__(self) -> Iterator[Tensor]:
        shuffled = self.generator is not None
        order = torch.randperm(self.size, generator=self.generator) if shuffled else torch.arange(self.size)
        first, self.first = self.first, 0
        for batch in torch.split(order, list(map(self.images, range(len(self)))))[first:]:
            yield batch[self.rank % len(batch) :: self.ranks]

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole + (rest >= self.least or whole == 0)

    def images(self, batch: int) -> int:
        """Return how many images a batch has, the first being 0, over all processes."""
        return self.batch_size if batch < len(self) - 1 else self.size - batch * self.batch_size

    def mine(self, batch: int) -> int:
        """Return how many images of a batch this process is to learn from."""
        return len(range(self.rank, self.images(batch), self.ranks))


def batches(split: Split, indices: BatchIndices, device: torch.device) -> DataLoader[tuple[Tensor, Tensor]]:
    """Load the batches of `split` that `indices` names, ready to be copied to `device`."""
    # batch_size=None: what the sampler yields is a whole batch already.
    return DataLoader(Indexed(split), batch_size=None, sampler=indices, pin_memory=device.type == "cuda")


def predict(classifier: nn.Module, split: Split, batch_size: int, device: torch.device) -> Tensor:
    """Compute the logits of a split in evaluation mode, `float32 [N, classes]` on the CPU."""
    return torch.cat([logits for logits, _ in logits_of(classifier, split, batch_size, device)])


@torch.inference_mode()
def logits_of(
    classifier: nn.Module, split: Split, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits `float32 [n, classes]` and labels `int64 [n]` of a split, batch by batch, on the CPU."""
    classifier.eval()
    for images, labels in batches(split, BatchIndices(len(split.labels), batch_size), device):
        yield classifier(images.to(device)).cpu(), labels
