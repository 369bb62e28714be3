"""Recipes: small overlays of params.yaml, a file each in recipes/; every dataset has one of its name.

A recipe may name another as its `base`, whose values it starts from.
"""

import json
from itertools import islice
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.overrides import flatten
from tasks.data.datasets import DATASETS
from tasks.harness.errors import ParamsError, shown
from tasks.params import whole

FOLDER = Path("recipes")
BASE = "base"
MOST = 1000  # values


def known() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def changes(name: str) -> list[str]:
    """Return what recipe `name` changes in params.yaml, as overrides `key=value`: its base, and its own values over it.

    Raises:
        ParamsError: there is no such recipe, or it is no mapping in YAML; or that is so of its base.
    """
    return [f"{key}={_as_yaml(value)}" for key, value in _values(name, ()).items()]


def _values(name: str, above: tuple[str, ...]) -> dict[str, object]:
    """Return every value that a recipe sets.

    Args:
        above: the recipes that have it as their base, the first being the one that was asked for.
    """
    if name in above:
        raise ParamsError(f"{FOLDER / above[0]}.yaml: base: {' -> '.join((*above, name))} goes round in a circle")
    overlay = _read(name, above)
    base = overlay.pop(BASE, None)
    values = {} if base is None else _values(str(base), (*above, name))
    own = dict(islice(flatten(overlay), MOST + 1))  # aliases may stand for more than memory holds
    if len(own) > MOST:
        raise ParamsError(f"{FOLDER / name}.yaml changes more than {MOST} values, and params.yaml has fewer")
    return values | own


def _read(name: str, above: tuple[str, ...]) -> dict[str, object]:
    path = FOLDER / f"{name}.yaml"
    if name not in known():
        asked = f"{FOLDER / above[-1]}.yaml: base: {name}" if above else f"RECIPE={name}"
        raise ParamsError(f"{asked}: there is no {path}; known here: {', '.join(known())}")
    try:
        overlay = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, ValueError) as error:  # ValueError: it is no UTF-8, or has a number of thousands of digits
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(overlay, dict):
        raise ParamsError(f"{path} holds {shown(overlay)}: it should be sections of params.yaml and the keys to change")
    return overlay


def for_dataset(dataset: str) -> list[str]:
    """Return the changes of the recipe that has the name of `dataset`.

    None where params.yaml names the dataset already: whatever was changed since is then the user's choice.

    Raises:
        ParamsError: there is no such dataset, or params.yaml is refused.
    """
    if dataset not in DATASETS:
        raise ParamsError(f"DATASET={dataset}: no such dataset; known here: {', '.join(DATASETS)}")
    return [] if whole.load().download.dataset == dataset else changes(dataset)


def _as_yaml(value: object) -> str:
    """Write a value so that YAML reads it again, a string without quotes where it needs none."""
    if isinstance(value, str) and YAML(typ="safe").load(value) == value:
        return value
    return json.dumps(value)
