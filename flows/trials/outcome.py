"""What a search came to: a table, and the best trial as a recipe."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from ruamel.yaml import YAML

from flows import overrides, recipes
from flows.trials.space import Space, Values
from flows.trials.study import Study, ranked
from tasks.harness.replacing import replacing

LISTED = 10  # trials on a terminal
HOW: dict[TrialState, str] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "given up", TrialState.FAIL: "failed"}


def rows(study: Study) -> list[dict[str, Any]]:
    """Return a row for each trial that is over: the complete ones, the best first, and then the others."""
    over = study.over()
    complete = ranked(over)
    return [_row(trial, study.space) for trial in (*complete, *(trial for trial in over if trial not in complete))]


def _row(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    complete = trial.state is TrialState.COMPLETE
    return {
        "trial": trial.number,
        "outcome": HOW[trial.state],
        "validation_accuracy": trial.value if complete else None,
        "epochs": trial.last_step or 0,
        "seconds": trial.user_attrs.get("seconds"),
        **space.decode(trial.params),
    }


def table(listed: Sequence[dict[str, Any]]) -> str:
    """Write the best trials for a terminal."""
    best = [row for row in listed if row["validation_accuracy"] is not None][:LISTED]
    names = [name for name in best[0] if name != "outcome"]
    heads = [name.partition(".")[2] or name.replace("_", " ") for name in names]
    cells = [heads, *([_cell(name, row[name]) for name in names] for row in best)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells)


def _cell(name: str, value: Any) -> str:
    if name == "validation_accuracy":
        return f"{value:.2%}"
    return f"{value:.0f}" if name == "seconds" else str(value)


def table_csv(listed: Sequence[dict[str, Any]]) -> str:
    """Write all trials as CSV."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(listed[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return buffer.getvalue()


def recipe(study: Study, text: str, changed: Values, name: str, dataset: str) -> str:
    """Write the best trial as a recipe: that of its dataset as the base, and what differs from it.

    Args:
        text: params.yaml, on which it gives the values of the trial.
        changed: what all trials had changed of it.
    """
    over = study.over()
    best = ranked(over)[0]
    tried = changed | study.space.decode(best.params)
    all_values = dict(overrides.flatten(YAML(typ="safe").load(text))) | tried
    base = recipes.values(dataset) if dataset in recipes.known() else {}
    own = {key: all_values[key] for key in (*base, *tried) if key not in base or base[key] != all_values[key]}
    lines = io.StringIO()
    YAML().dump(_nested(own), lines)
    return (
        f"about:\n  summary: >-\n    The best of {len(over)} trials of make search, study {name}: trial {best.number}, "
        f"{best.value:.2%} of the validation images.\n  reaches: null\n"
        f"{f'base: {dataset}{chr(10)}' if base else ''}{lines.getvalue() if own else ''}"
    )


def _nested(values: Values) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        mapping = document
        for section in sections:
            mapping = mapping.setdefault(section, {})
        mapping[last] = value
    return document


def keep(text: str, name: str, written: Path) -> Path:
    """Write a recipe into the folder of recipes, and never over one that somebody else wrote, or changed.

    Args:
        written: where a copy of it is kept, by which a later run sees that the recipe is as it was written.
    """
    before = written.read_text(encoding="utf-8") if written.exists() else None
    number = 1
    while True:
        path = recipes.FOLDER / f"search-{name}{f'-{number}' if number > 1 else ''}.yaml"
        if not path.exists() or path.read_text(encoding="utf-8") in (before, text):
            break
        number += 1
    for place in (written, path):
        with replacing(place) as partial:
            partial.write_text(text, encoding="utf-8")
    return path
