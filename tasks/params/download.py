"""The section `download` of params.yaml."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.data.datasets import DATASETS
from tasks.harness import section
from tasks.harness.errors import ParamsError
from tasks.harness.section import Section

DEFAULT_PATH = "data/inbox"


def _known(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(f"should be one of {', '.join(DATASETS)}")
    return name


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
    path: str = Field(min_length=1)
    csv: Csv


def inbox() -> str:
    """Return download.path, or its default where the section is refused: whoever loads it next says why."""
    try:
        return section.load(Download).path
    except ParamsError:
        return DEFAULT_PATH
