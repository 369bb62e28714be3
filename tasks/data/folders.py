"""Images in folders by class, with folders for the splits above them or without."""

from collections import Counter
from pathlib import Path

from serving.images import SUFFIXES
from tasks.data.item import SPLITS, Item
from tasks.harness.errors import StageError
from tasks.prepared import SplitName


def read(root: Path) -> tuple[list[str], list[Item]]:
    """List `<class>/*.png`, or `train/<class>/*.png` and the same of test and val (torchvision's ImageFolder)."""
    if (root / "train").is_dir():
        tops: dict[Path, SplitName | None] = {root / name: SPLITS[name] for name in SPLITS if (root / name).is_dir()}
        others = [path for path in root.iterdir() if path not in tops and any(map(_is_image, path.rglob("*")))]
        if others:
            raise StageError(
                f"{root}: beside train/ there are images in {', '.join(sorted(path.name for path in others))}, "
                f"but a split is one of {', '.join(SPLITS)}; if train is a class, put all classes into train/"
            )
    else:
        tops = {root: None}
    files = [
        (path, path.relative_to(top).parts, split)
        for top, split in tops.items()
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    items = [
        Item(str(path.relative_to(root)), parts[0], split)
        for path, parts, split in files
        if _is_image(path) and len(parts) > 1
    ]
    if barren := sorted({parts[0] for _, parts, _ in files if len(parts) > 1} - {item.label for item in items}):
        raise StageError(f"{root}: no images of {', '.join(barren)}: images are {', '.join(SUFFIXES)} files")
    _say_what_is_left_out([path for path, parts, _ in files if not _is_image(path) or len(parts) == 1])
    class_names = sorted({item.label for item in items if item.split in (None, "train")})
    if unknown := sorted({item.label for item in items} - set(class_names)):
        raise StageError(f"{root}: no training images of {', '.join(unknown)}; the classes of train/ are {class_names}")
    return class_names, items


def _say_what_is_left_out(files: list[Path]) -> None:
    kinds = Counter(
        "in no folder of a class" if _is_image(file) else file.suffix or "without a suffix" for file in files
    )
    if kinds:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        print(f"Left out: {listed}; images are {', '.join(SUFFIXES)} files in a folder for their class", flush=True)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
