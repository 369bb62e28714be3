"""Changes to params.yaml from the command line, `-S [params.yaml:]key=value`, as `dvc exp run -S` makes them."""

import io
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.harness import section
from tasks.harness.errors import ParamsError, shown
from tasks.harness.replacing import replacing
from tasks.harness.section import PARAMS
from tasks.params import whole
from tasks.params.whole import Params

MOST = 120  # characters of an override in a message


def apply(text: str, overrides: list[str]) -> tuple[str, list[str]]:
    """Return `text`, the contents of params.yaml, with the overrides made, and a line for each value that changed.

    Comments and layout stay. A value is YAML; there are no sweeps.

    Raises:
        ParamsError: an override is malformed, or what it leads to is refused.
    """
    written, changes, _ = _apply(text, overrides)
    return written, changes


def _apply(text: str, overrides: list[str]) -> tuple[str, list[str], Params]:
    """Do what `apply` does, and return what the new text says, too."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000  # never wrap a line
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    source = " ".join(("params.yaml with", *map(_cut, overrides)))
    try:
        document = yaml.load(text)
        changes = [change for override in overrides if (change := _set(yaml, document, override))]
        written = _dump(yaml, document) if changes else text
        changed = YAML(typ="safe").load(written)
    except ParamsError:
        raise
    except (YAMLError, ValueError) as error:  # a tag that plain YAML does not have
        raise ParamsError(f"{source} is refused: {str(error).partition(chr(10))[0]}") from None
    except RecursionError:
        raise ParamsError(f"{source} is refused: it is nested too deeply") from None
    return written, changes, section.parse(Params, changed, source)


def check(overrides: list[str]) -> Params:
    """Return what params.yaml would say with the overrides, without writing it.

    Raises:
        ParamsError: see `apply`; or params.yaml is refused as it is.
    """
    _, _, params = _apply_to_file(overrides)
    return params


def write(overrides: list[str]) -> list[str]:
    """Make the overrides in params.yaml itself, all or none, and return a line for each value that changed.

    Raises:
        ParamsError: see `check`; the file is as it was.
    """
    text, changes, _ = _apply_to_file(overrides)
    if changes:
        with replacing(PARAMS.resolve()) as partial:  # it may be a link
            partial.write_text(text, encoding="utf-8")
    return changes


def _apply_to_file(overrides: list[str]) -> tuple[str, list[str], Params]:
    whole.load()  # what is wrong with the file itself is to be said of it, not of the overrides
    return _apply(PARAMS.read_text(encoding="utf-8"), overrides)


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
        raise ParamsError(f"-S {_cut(override)}: expected [params.yaml:]key=value, for example train.epochs=10")
    mapping = document
    for name_of_section in sections:
        mapping = mapping.setdefault(name_of_section, {})  # `apply` refuses a section that is not known
        if not isinstance(mapping, dict):
            raise ParamsError(f"-S {_cut(override)}: {name_of_section} is a value in params.yaml, not a section")
    try:
        new = yaml.load(value)
    except (YAMLError, ValueError):
        raise ParamsError(f"-S {_cut(override)}: {shown(value)} is not a YAML value") from None
    old = mapping.get(key)
    if key in mapping and old == new and type(old) is type(new):
        return None
    mapping[key] = new
    return f"{name}: {_shown(old)} -> {_shown(new)}"


def _cut(override: str) -> str:
    """Shorten an override so that a message about it can be read."""
    return override if len(override) <= MOST else f"{override[:MOST]}..."


def _dump(yaml: YAML, document: Any) -> str:
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
