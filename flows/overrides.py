"""Changes to params.yaml from the command line, `-S [params.yaml:]key=value`, as `dvc exp run -S` makes them."""

import io
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.harness import section
from tasks.harness.errors import ParamsError
from tasks.harness.section import PARAMS
from tasks.params import whole
from tasks.params.whole import Params


def apply(text: str, overrides: list[str]) -> tuple[str, list[str]]:
    """Return `text`, the contents of params.yaml, with the overrides made, and a line for each value that changed.

    Comments and layout stay. A value is YAML; there are no sweeps.

    Raises:
        ParamsError: an override is malformed, or what it leads to is refused.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000  # never wrap a line
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(text)
    changes = [change for override in overrides if (change := _set(yaml, document, override))]
    source = " ".join(("params.yaml with", *overrides))
    try:
        changed = YAML(typ="safe").load(_dump(yaml, document))
    except YAMLError as error:  # a tag that plain YAML does not have
        raise ParamsError(f"{source} is refused: {str(error).partition(chr(10))[0]}") from None
    section.parse(Params, changed, source)
    return (_dump(yaml, document) if changes else text), changes


def check(overrides: list[str]) -> tuple[str, list[str]]:
    """Apply the overrides to params.yaml as it is now, without writing it; see `apply`."""
    whole.load()
    return apply(PARAMS.read_text(encoding="utf-8"), overrides)


def write(overrides: list[str]) -> list[str]:
    """Make the overrides in params.yaml itself, all or none, and return a line for each value that changed.

    Raises:
        ParamsError: see `apply`; the file is as it was.
    """
    text, changes = check(overrides)
    if changes:
        partial = PARAMS.with_name(f".partial-{PARAMS.name}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(PARAMS)
    return changes


def flatten(document: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested mappings, each with its keys joined by dots."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, document


def _set(yaml: YAML, document: Any, override: str) -> str | None:
    name, separator, value = override.removeprefix(f"{PARAMS}:").partition("=")
    *sections, key = name.split(".")
    if not separator or not key:
        raise ParamsError(f"-S {override}: expected [params.yaml:]key=value, for example train.epochs=10")
    mapping = document
    for name_of_section in sections:
        mapping = mapping.setdefault(name_of_section, {})  # `apply` refuses a section that is not known
        if not isinstance(mapping, dict):
            raise ParamsError(f"-S {override}: {name_of_section} is a value in params.yaml, not a section")
    try:
        new = yaml.load(value)
    except YAMLError:
        raise ParamsError(f"-S {override}: {value!r} is not a YAML value") from None
    old = mapping.get(key)
    if key in mapping and old == new and type(old) is type(new):
        return None
    mapping[key] = new
    return f"{name}: {_shown(old)} -> {_shown(new)}"


def _dump(yaml: YAML, document: Any) -> str:
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
