"""Images in folders by class, with folders for the splits above them or without."""

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from serving.images import SUFFIXES
from tasks.data.item import SPLITS, Item
from tasks.harness.errors import StageError, listed, shown
from tasks.params.download import apart
from tasks.prepared import SplitName

MAX_NAMED = 5  # of the files and folders of a kind that are left out
DEEPEST = 100  # folders in folders: DVC, which goes down by recursion, ends in a traceback below about 900
TOO_DEEP = f"{{}}: folders are nested more than {DEEPEST} deep here; images of a class lie in its folder or just below"

FolderId = tuple[int, int]  # device and inode, the same by whichever link a folder is reached


def read(root: Path) -> tuple[list[str], list[Item]]:
    """List `<class>/*.png`, or `train/<class>/*.png` and the same of test and val (torchvision's ImageFolder).

    Links are followed. What is left out, hidden files and folders among it, is printed: how much of it, and its names.

    Raises:
        StageError: a class has no image, or no training image, or what lies beside the splits is none.
    """
    inbox = Inbox(root)
    items: list[Item] = []
    barren: list[str] = []
    for label, split, folder, seen in _classes(inbox):
        files = list(inbox.files(folder, seen))
        images = [file for file in files if is_image(file)]
        items += [Item(str(image), unicodedata.normalize("NFC", label), split) for image in images]
        for file in set(files) - set(images):
            inbox.leave_out(file.suffix or "without a suffix", file)
        if files and not images:
            barren.append(label)
        elif not files:
            inbox.leave_out("folders without a file", folder)
    if barren:
        raise StageError(f"{root}: no images of {', '.join(barren)}: images are {', '.join(SUFFIXES)} files")
    if inbox.left_out:
        print(f"{inbox}\nImages are {', '.join(SUFFIXES)} files in a folder for their class", flush=True)
    class_names = sorted({item.label for item in items if item.split in (None, "train")})
    if unknown := sorted({item.label for item in items} - set(class_names)):
        raise StageError(f"{root}: no training images of {', '.join(unknown)}; the classes of train/ are {class_names}")
    return class_names, items


class Inbox:
    """The folder of one's own images, and what of it is left out: paths below it, by kind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: dict[str, list[str]] = defaultdict(list)

    def leave_out(self, kind: str, path: Path) -> None:
        self.left_out[kind].append(str(path))

    def __str__(self) -> str:
        lines = []
        for kind, paths in sorted(self.left_out.items()):
            named = [path if path.isprintable() else repr(path) for path in sorted(paths)]
            lines.append(f"Left out: {kind} ({len(paths):,}): {listed(named, MAX_NAMED)}")
        return "\n".join(lines)

    def entries(self, folder: Path) -> Iterator[tuple[Path, FolderId | None]]:
        """Yield the files and folders directly in `folder`, by name, and of the folders which they are.

        Paths are below the root, and so is `folder`.

        Raises:
            StageError: the folder is nested deeper than DVC can follow.
        """
        if len(folder.parts) > DEEPEST:
            raise StageError(TOO_DEEP.format(shown(str(self.root / folder))))
        with os.scandir(self.root / folder) as scanned:
            found = sorted(scanned, key=lambda entry: entry.name)
        for entry in found:
            path = folder / entry.name
            try:
                status = entry.stat()
            except OSError as error:
                if not entry.is_symlink():
                    raise
                self.leave_out(f"links that cannot be followed ({error.strerror})", path)
                continue
            if entry.name.startswith("."):
                self.leave_out("hidden", path)
            elif stat.S_ISDIR(status.st_mode):
                if entry.is_symlink():
                    self._check_target(path)
                yield path, (status.st_dev, status.st_ino)
            elif stat.S_ISREG(status.st_mode):
                yield path, None
            else:
                self.leave_out("neither file nor folder", path)

    def files(self, folder: Path, seen: set[FolderId]) -> Iterator[Path]:
        """Yield the files in `folder` and below it, each folder once, as links may lead in a circle.

        Args:
            seen: `folder` and those above it, and then all that was gone through.
        """
        for path, folder_id in self.entries(folder):
            if folder_id is None:
                yield path
            elif folder_id in seen:
                self.leave_out("folders that links lead to once more", path)
            else:
                seen.add(folder_id)
                yield from self.files(path, seen)

    def _check_target(self, link: Path) -> None:
        try:
            apart(str(self.root / link))
        except ValueError as error:
            raise StageError(f"{self.root / link}: this link {error}") from None


def _classes(inbox: Inbox) -> Iterator[tuple[str, SplitName | None, Path, set[FolderId]]]:
    """Yield each class, its split where there are any, its folder below the root, and the ids of it and those above."""
    status = inbox.root.stat()
    root = (status.st_dev, status.st_ino)
    if not (inbox.root / "train").is_dir():
        for folder, folder_id in _folders(inbox, Path()):
            yield folder.name, None, folder, {root, folder_id}
        return
    strangers = []
    for top, top_id in _folders(inbox, Path()):
        if split := SPLITS.get(top.name):
            for folder, folder_id in _folders(inbox, top):
                yield folder.name, split, folder, {root, top_id, folder_id}
        elif any(map(is_image, inbox.files(top, {root, top_id}))):
            strangers.append(top.name)
        else:
            inbox.leave_out("folders that are no split", top)
    if strangers:
        raise StageError(
            f"{inbox.root}: beside train/ there are images in {', '.join(strangers)}, "
            f"but a split is one of {', '.join(SPLITS)}; if train is a class, put all classes into train/"
        )


def _folders(inbox: Inbox, parent: Path) -> Iterator[tuple[Path, FolderId]]:
    for path, folder_id in inbox.entries(parent):
        if folder_id is not None:
            yield path, folder_id
        else:
            inbox.leave_out("in no folder of a class" if is_image(path) else path.suffix or "without a suffix", path)


def is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES
