"""Files that appear under their names only when they are whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the body a path beside `path` to write to; what it has written takes the place of `path` then."""
    partial = path.with_name(f".partial-{path.name}~")  # which nobody takes for a recipe, or a picture
    yield partial
    partial.replace(path)
