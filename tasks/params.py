"""The typed form of params.yaml, the only source of intent.

Reads `params.yaml` in the working directory. Unknown keys, wrong types and values out of range are refused, all at
once, each with its name and what would be right.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PATH = Path("params.yaml")


class ParamsError(ValueError):
    """params.yaml cannot be used; the message lists every reason."""


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    if not values or len(set(values)) < len(values):
        raise ValueError("should be a list of at least one value, none of them twice")
    return values


def _two(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(values) != 2:
        raise ValueError("should be [height, width]")
    return values


def _provider(name: str) -> str:
    if name != "auto" and not name.endswith("ExecutionProvider"):
        raise ValueError("should be auto or a name of ONNX Runtime's, for example CUDAExecutionProvider")
    return name


DatasetName = Literal["fashion_mnist", "mnist", "kmnist", "cifar10", "cifar100", "digits", "csv", "folder"]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Seconds = Annotated[int, Field(ge=1, le=30 * 24 * 3600)]


class Section(BaseModel):
    # strict: "5" is no integer and true is no 1; YAML has types, so a wrong one is a mistake.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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


class Transform(Section):
    # A YAML sequence arrives as a list, which strict mode would not take for a tuple.
    image_size: Annotated[tuple[Pixels, ...], Field(strict=False), AfterValidator(_two)]
    channels: Literal[1, 3]
    resize: Literal["crop", "stretch"]
    on_bad_image: Literal["fail", "skip"]
    max_bad_fraction: float = Field(ge=0, lt=1)
    on_leak: Literal["fail", "allow"]
    validation_fraction: float = Field(gt=0, lt=1)
    test_fraction: float = Field(gt=0, lt=1)
    seed: Seed


class Train(Section):
    epochs: Epochs
    batch_size: BatchSize
    learning_rate: LearningRate
    normalize: Literal["none", "half", "fitted"]
    seed: Seed
    threads: int | None = Field(ge=1, le=1024)


class Evaluate(Section):
    batch_size: BatchSize
    pictures: int = Field(ge=1, le=100)


class Export(Section):
    provider: Annotated[str, AfterValidator(_provider)]
    tolerance: float = Field(gt=0, le=1)
    batch_sizes: Annotated[tuple[BatchSize, ...], Field(strict=False), AfterValidator(_distinct)]


class TimeLimits(Section):
    download: Seconds
    transform: Seconds
    train: Seconds
    evaluate: Seconds
    export: Seconds


class Flow(Section):
    download_retries: int = Field(ge=0, le=100)
    retry_delay_s: Seconds
    time_limit_s: TimeLimits


class Params(Section):
    download: Download
    transform: Transform
    train: Train
    evaluate: Evaluate
    export: Export
    flow: Flow


def load(path: Path = PATH) -> Params:
    """Read and check `path`.

    Raises:
        ParamsError: the file is missing, no YAML, or holds a value that is refused.
    """
    try:
        document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the project's folder, or `git restore {path}`") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    return parse(document, source=str(path))


def inbox() -> str:
    """Return download.path, or its default where params.yaml is refused: whoever loads it next says why."""
    try:
        return load().download.path
    except ParamsError:
        return "data/inbox"


def parse(document: object, source: str) -> Params:
    """Check a parsed YAML document; `source` is what an error calls it.

    Raises:
        ParamsError: lists every value that is refused.
    """
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        reasons = [_reason(dict(detail)) for detail in error.errors()]
        raise ParamsError(f"{source} is refused:\n" + "\n".join(f"  {reason}" for reason in reasons)) from None


def _reason(detail: dict[str, Any]) -> str:
    location = detail["loc"]
    name = ".".join(str(part) for part in location) or "the whole file"
    if detail["type"] == "extra_forbidden":
        return f"{name}: unknown key; known here: {', '.join(_keys(location[:-1]))}"
    if detail["type"] == "missing":
        return f"{name}: missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{name} = {detail['input']!r}: {message[0].lower()}{message[1:]}"


def _keys(location: tuple[str | int, ...]) -> list[str]:
    model: Any = Params
    for part in location:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
