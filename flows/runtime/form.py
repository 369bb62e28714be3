"""What a person may change for one run of the schedule: the form that Prefect makes of the flow's parameters."""

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from flows import recipes
from flows.overrides import flatten
from flows.runtime import night
from tasks.prepared import Pixels

# The names of those that there are now are in the schema, too, for the form to choose from.
Recipe = Annotated[str, Field(json_schema_extra=lambda schema: schema.update(enum=recipes.known()))]
Text = Annotated[str, Field(min_length=1)]
Size = Annotated[list[Pixels], Field(min_length=2, max_length=2)]

KEYS = {
    "path": "download.path",
    "image_size": "transform.image_size",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "seed": "train.seed",
}


def shown() -> dict[str, object]:
    """Return what the form shows before anybody has changed it: what is committed.

    Raises:
        ParamsError, StageError: see `night.committed`.
    """
    committed = dict(flatten(night.committed().model_dump(mode="json")))
    return {name: committed[key] for name, key in KEYS.items()}


def changes(recipe: str | None, fields: Mapping[str, object]) -> list[str]:
    """Return what a run changes in params.yaml: what the recipe does, and the fields over it.

    Args:
        fields: by the names of KEYS. One that is as committed, which the form shows, or None, leaves it to the recipe.

    Raises:
        ParamsError: there is no such recipe.
    """
    asked = {name: value for name, value in fields.items() if value is not None}
    committed = shown() if asked else {}
    own = [f"{KEYS[name]}={json.dumps(value)}" for name, value in asked.items() if value != committed[name]]
    return [*(recipes.changes(recipe) if recipe else []), *own]


def dataset(recipe: str | None) -> str:
    """Return the name of the dataset that a run is asked for by its recipe, or by what is committed.

    Raises:
        ParamsError: there is no such recipe.
    """
    asked = recipes.values(recipe).get("download.dataset") if recipe else None
    return str(asked or night.committed().download.dataset)
