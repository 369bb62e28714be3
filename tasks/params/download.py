"""The section `download` of params.yaml."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.data.datasets import DATASETS
from tasks.harness import section
from tasks.harness.errors import ParamsError
from tasks.harness.section import Section

TABLE = "tasks/data/datasets.py"  # the path of all datasets but one's own images
# What the pipeline, DVC, git and make for it, write and remove.
WRITTEN = ("data/raw", "data/prepared", "models", "reports", ".cache", ".dvc", ".git", ".venv", "dvc_plots")
PARTIAL = ".partial-"  # how the names of what is not yet whole begin


def _known(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(f"should be one of {', '.join(DATASETS)}")
    return name


def apart(path: str) -> str:
    """See that a folder of images is apart from all that the pipeline writes, whichever links lead to either.

    Raises:
        ValueError: what is in it would be removed sooner or later, or the links in it lead in a circle.
    """
    try:
        place = Path(path).resolve()
        overlaps = [written for written in WRITTEN if _overlap(place, Path(written))]
    except (OSError, RuntimeError) as error:  # a name that is too long; links in a circle
        raise ValueError(f"cannot be followed: {error}") from None
    if overlaps or any(part.startswith(PARTIAL) for part in place.parts):
        there = ", ".join(overlaps) or f"folders named {PARTIAL}*"
        raise ValueError(
            f"should be apart from {there}, where the pipeline removes what it finds; "
            "data/inbox is a place for your own images"
        )
    return path


def _overlap(place: Path, written: Path) -> bool:
    """Tell whether one of the two lies in the other, or is the other."""
    return any(_within(place, there) or _within(there, place) for there in {written.resolve(), Path.cwd() / written})


def _within(inner: Path, outer: Path) -> bool:
    # A file system that does not tell apart upper and lower case has more than one name for a folder.
    existing = outer.exists() and any(path.exists() and path.samefile(outer) for path in (inner, *inner.parents))
    return existing or inner.is_relative_to(outer)


# The names are in the schema, too, for forms that let a person choose.
DatasetName = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(DATASETS)})]
Column = str | Annotated[int, Field(ge=0)]


class Csv(Section):
    file: str
    header: bool
    image: Column
    label: Column
    split: Column | None


class Download(Section):
    dataset: DatasetName
    path: Annotated[str, Field(min_length=1), AfterValidator(apart)]
    csv: Csv


def source() -> str:
    """Return download.path, or its default where the section is refused: whoever loads it next says why."""
    try:
        return section.load(Download).path
    except ParamsError:
        return TABLE
