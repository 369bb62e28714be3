"""One of your own images, and the words for its split."""

from dataclasses import dataclass

from tasks.prepared import SplitName

SPLITS: dict[str, SplitName] = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Item:
    """One image file and what is known of it."""

    path: str  # below the root
    label: str  # a class name
    split: SplitName | None  # None: params.yaml decides
    sha256: str = ""
