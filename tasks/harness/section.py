"""A section of params.yaml, the only source of intent: its base class, how it is read, and how it is refused.

Unknown keys, wrong types and values out of range are refused, all at once, each with its name and what would be right.
"""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.harness.errors import ParamsError, refusal

PARAMS = Path("params.yaml")

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A mapping in params.yaml; a subclass names its keys, and is itself named after the section."""

    # strict: "5" is no integer and true is no 1; YAML has types, so a wrong one is a mistake.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


AnySection = TypeVar("AnySection", bound=Section)
Location = tuple[str | int, ...]


def load(section: type[AnySection]) -> AnySection:
    """Read one section of params.yaml in the working directory.

    Raises:
        ParamsError: the file is missing, no YAML, or the section holds a value that is refused.
    """
    document = read()
    name = section.__name__.lower()
    values = document.get(name) if isinstance(document, dict) else None
    return parse(section, values, str(PARAMS), at=(name,))


def read() -> object:
    """Parse params.yaml in the working directory, without a look at what it says.

    Raises:
        ParamsError: it is missing, or no YAML.
    """
    try:
        return YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{PARAMS} is missing: run from the project's folder, or `git restore {PARAMS}`") from None
    except (YAMLError, ValueError) as error:  # ValueError: it is no UTF-8, or has a number of thousands of digits
        raise ParamsError(f"{PARAMS} is not valid YAML: {error}") from None


def parse(section: type[AnySection], values: object, source: str, at: Location = ()) -> AnySection:
    """Check parsed YAML.

    Args:
        source: what an error calls it.
        at: where it stands in the file.

    Raises:
        ParamsError: lists every value that is refused.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        reasons = [_reason(section, detail, at) for detail in error.errors()]
        raise ParamsError(f"{source} is refused:\n" + "\n".join(f"  {reason}" for reason in reasons)) from None


def _reason(section: type[Section], detail: ErrorDetails, at: Location) -> str:
    if detail["type"] != "extra_forbidden":
        return refusal(detail, at)
    name = ".".join(map(str, (*at, *detail["loc"])))
    return f"{name}: unknown key; known here: {', '.join(_keys(section, detail['loc'][:-1]))}"


def _keys(section: type[Section], location: Location) -> list[str]:
    model: Any = section
    for part in location:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
