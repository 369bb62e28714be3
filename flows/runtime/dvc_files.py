"""The two files that DVC writes in place, and leaves cut off if it is killed meanwhile."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

LOCK = Path("dvc.lock")
RWLOCK = Path(".dvc/tmp/rwlock")
SETTLED_S = 2  # without being written to: no DVC is about to write the rest


def remove_damaged() -> list[Path]:
    """Remove what no DVC command could read any more, and return what that was.

    DVC makes both anew. What it has run before it then restores from its cache: that does not depend on dvc.lock.
    """
    damaged = [
        path for path, whole in ((LOCK, _is_lock), (RWLOCK, _is_json)) if path.exists() and not _holds(path, whole)
    ]
    for path in damaged:
        path.unlink()
    return damaged


def _holds(path: Path, whole: Callable[[str], bool]) -> bool:
    while not (good := whole(path.read_text(encoding="utf-8"))) and time.time() - path.stat().st_mtime < SETTLED_S:
        time.sleep(0.1)
    return good


def _is_lock(text: str) -> bool:
    """Tell whether DVC would take `text`, so far as a cut at any byte may have changed that."""
    if "<<<<<<<" in text:  # a merge that the user has to finish
        return True
    try:
        document = YAML(typ="safe", pure=True).load(text)
        return text.endswith("\n") and "schema" in document and all(map(_is_stage, document["stages"].values()))
    except (YAMLError, TypeError, AttributeError, KeyError):
        return False


def _is_stage(stage: dict[str, Any]) -> bool:
    lists = (stage.get("deps", []), stage.get("outs", []))
    dicts = stage.get("params", {}).values()
    return "cmd" in stage and all(isinstance(part, list) for part in lists) and all(isinstance(d, dict) for d in dicts)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
