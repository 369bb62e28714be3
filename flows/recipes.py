"""Recipes: small overlays of params.yaml, a file each in recipes/; every dataset has one of its name.

A recipe may name another as its `base`, whose values it starts from. Its `about` is for who reads, and no value.
"""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.overrides import flatten
from tasks.data.datasets import DATASETS
from tasks.evaluation.record import Share
from tasks.harness import section
from tasks.harness.errors import ParamsError, shown
from tasks.harness.section import Section
from tasks.params import whole

FOLDER = Path("recipes")
BASE, ABOUT = "base", "about"
MOST = 1000  # values


class Reaches(Section):
    """What a recipe came to, the values that it does not set being those that are shipped."""

    accuracy: Annotated[tuple[Share, Share], Field(strict=False)]  # of the test images: the lowest and the highest run
    n: int = Field(ge=1)  # runs
    hardware: str
    train_s: float | None = Field(gt=0)  # None: not taken


class About(Section):
    """What a recipe is, in plain words, and what it should reach; None: nobody has measured it."""

    summary: str = Field(min_length=1)
    reaches: Reaches | None


@dataclass(frozen=True)
class Nearest:
    """The recipe that differs least from params.yaml."""

    name: str
    about: About | None
    differs: list[tuple[str, object, object]]  # key, its value, that of params.yaml; none: it is that recipe


def known() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def changes(name: str) -> list[str]:
    """Return what recipe `name` changes in params.yaml, as overrides `key=value`: its base, and its own values over it.

    Raises:
        ParamsError: there is no such recipe, or it is no mapping in YAML; or that is so of its base.
    """
    return [f"{key}={_as_yaml(value)}" for key, value in values(name).items()]


def values(name: str, above: tuple[str, ...] = ()) -> dict[str, object]:
    """Return every value that recipe `name` sets, its base's included, by its keys joined with dots.

    Args:
        above: the recipes that have it as their base, the first being the one that was asked for.

    Raises:
        ParamsError: see `changes`.
    """
    if name in above:
        raise ParamsError(f"{FOLDER / above[0]}.yaml: base: {' -> '.join((*above, name))} goes round in a circle")
    overlay = _read(name, above)
    base = overlay.pop(BASE, None)
    overlay.pop(ABOUT, None)
    inherited = {} if base is None else values(str(base), (*above, name))
    own = dict(islice(flatten(overlay), MOST + 1))  # aliases may stand for more than memory holds
    if len(own) > MOST:
        raise ParamsError(f"{FOLDER / name}.yaml changes more than {MOST} values, and params.yaml has fewer")
    return inherited | own


def about(name: str) -> About | None:
    """Return what recipe `name` says of itself; None: nothing.

    Raises:
        ParamsError: there is no such recipe, or what it says is no `About`.
    """
    overlay = _read(name, ())
    if ABOUT not in overlay:
        return None
    return section.parse(About, overlay[ABOUT], str(FOLDER / f"{name}.yaml"), at=(ABOUT,))


def nearest(params: object) -> Nearest | None:
    """Find the recipe that differs least from what params.yaml holds; None: there is no recipe.

    Raises:
        ParamsError: a recipe is refused.
    """
    here = dict(flatten(params))
    sets = {name: values(name) for name in known()}
    differs = {
        name: [(key, value, here.get(key)) for key, value in of_one.items() if here.get(key) != value]
        for name, of_one in sets.items()
    }
    # Of two that do not differ, the one that sets more says more.
    name = min(sets, key=lambda name: (len(differs[name]), -len(sets[name])), default=None)
    return Nearest(name, about(name), differs[name]) if name is not None else None


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
