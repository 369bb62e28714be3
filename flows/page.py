"""The present state of the pipeline as a page: what went in, what came out, and what is new since the last run.

Reads:  params.yaml, data/prepared/, reports/, and the run before this one in .cache/
Writes: reports/report.html, all in one file, and reports/report.md, for a pull request
Run:    python -m flows.page
"""

import base64
import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from flows import charts, differences, last_good, project_lock, report
from flows.project_lock import ProjectLocked
from tasks import params, pictures
from tasks.params import ParamsError
from tasks.prepared import FOLDER, SPLITS, Card, Images, Place, Split, names
from tasks.stage import StageError

HTML, MARKDOWN = Path("reports/report.html"), Path("reports/report.md")
SHOWN = 20  # images of each kind
LISTED = 50  # rows of a table
DOUBTED = 10  # labels in report.md
STAGES = ("download", "transform", "train", "evaluate", "export")
MARKS = re.compile(r"[\\`*<>\[\]|~]|(?<![^\W_])_|_(?![^\W_])")  # what Markdown would take for its own
THUMBNAIL = 160  # pixels, the longer side of an image at most

Cell = dict[str, str]  # src, name, caption


def main() -> None:
    try:
        with project_lock.hold():
            context = gather()
            for path in (HTML, MARKDOWN):
                path.write_text(render(path, context), encoding="utf-8")
    except ProjectLocked as error:
        sys.exit(f"report: {error.holder} is at work; there is one to write when it has ended")
    except (ParamsError, StageError) as error:
        sys.exit(f"report: {error}")
    print(f"{context['verdict']}\n{HTML}\n{MARKDOWN}")


def gather() -> dict[str, Any]:
    """Collect all that the templates show; None where a stage has not left it.

    Raises:
        StageError: no stage has left anything, or DVC cannot tell whether it is of one run.
    """
    data = report.read(report.DATA)
    if data is None:
        raise StageError(f"there is no {report.DATA} yet: make run")
    passed = data["passed"]  # else what else there is belongs to another run
    metrics = report.read(report.METRICS) if passed else None
    parity = report.read(report.PARITY) if passed else None
    changed = stale()
    before = None if changed else last_good.before()
    run = report.read(report.RUN)
    return {
        "verdict": verdict(data, metrics, parity, changed),
        "live": bool(parity and parity["passed"] and not changed),
        "changed": changed,
        "data": data,
        "totals": {split: sum(row[split] for row in data["classes"]) for split in SPLITS},
        "metrics": metrics,
        "parity": parity,
        "run": run if run and passed and run.get("dvc_lock") == report.lock_digest() else None,
        "parameters": params.PATH.read_text(encoding="utf-8"),
        "before": before,
        "new_parameters": differences.parameters(before, Path()) if before else [],
        "new_results": differences.results(before, Path()) if before else [],
        "other_images": before is not None and differences.images(before) != differences.images(Path()),
        "remarks": report.remarks(data, metrics) if metrics else [],
        "sizes": _sizes(data["formats"]),
        "doubted": _rows("reports/suspects.csv")[:DOUBTED] if metrics and "evaluate" not in changed else [],
        "confused": charts.most_confused(metrics["confusion_matrix"], list(metrics["per_class"])) if metrics else [],
        "charts": _charts(metrics),
        **_grids(passed, metrics is not None and "evaluate" not in changed),
    }


def verdict(
    data: dict[str, Any], metrics: dict[str, Any] | None, parity: dict[str, Any] | None, changed: list[str]
) -> str:
    """Say in one sentence whether there is a model that could go live."""
    if not data["passed"]:
        return "Not trained: the data checks failed"
    if metrics is None:
        return "Not evaluated yet"
    if parity is None:
        return "Not exported: there is no verdict on the ONNX model yet"
    if not parity["passed"]:
        return f"Withheld: {parity['reason']}"
    if changed:
        return f"Out of date: {changed[0]} and what follows it would run again"
    return "Verified: the ONNX model predicts what the .pth model predicts"


def stale() -> list[str]:
    """List the stages whose inputs or outputs are not what DVC has recorded; they, and what follows, would run again.

    Raises:
        StageError: DVC does not say.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise StageError(f"dvc status failed: {answer.stderr.strip()}")
    changed = json.loads(answer.stdout)
    return [stage for stage in STAGES if stage in changed]


def render(path: Path, context: dict[str, Any]) -> str:
    """Fill in the template of `path`, report.html or report.md."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=path.suffix == ".html",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"value": value, "change": change, "md": markdown, "digits": digits}
    environment.globals["LISTED"] = LISTED
    return environment.get_template(f"{path.name}.jinja").render(context)


def value(something: object) -> str:
    """Write a value of a table: a number with four digits, a missing one as a dash."""
    if something is None:
        return "-"
    if isinstance(something, float):
        return f"{something:.4g}"
    return f"{something:,}" if isinstance(something, int) and not isinstance(something, bool) else f"{something}"


def change(number: float | None) -> str:
    """Write how much more a value is; nothing where that cannot be said."""
    return "" if number is None else f"{'+' if number > 0 else ''}{value(number)}"


def digits(number: float | None, form: str) -> str:
    """Write a number in a form of Python's; one that is missing, as it was not finite or not taken, as a dash."""
    return "-" if number is None else format(number, form)


def markdown(something: object) -> str:
    """Write a value into a line or a table of Markdown, so that it is read as it is."""
    return MARKS.sub(r"\\\g<0>", value(something)).replace("\n", " ")


def _rows(path: str) -> list[dict[str, str]]:
    if not Path(path).exists():
        return []
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _charts(metrics: dict[str, Any] | None) -> dict[str, str]:
    if metrics is None:
        return {}
    curve = [{name: float(text) for name, text in row.items()} for row in _rows("reports/learning_curve.csv")]
    figures = {
        "learning_curve": charts.learning_curve(curve),
        "calibration": charts.calibration(metrics["calibration"]),
        "confusion_matrix": charts.confusion_matrix(metrics["confusion_matrix"], list(metrics["per_class"])),
    }
    return {name: _uri("image/svg+xml", charts.svg(figure)) for name, figure in figures.items()}


def _sizes(formats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum up formats by mode: how many images, and from which to which size."""
    return [
        {
            "mode": mode,
            "images": sum(row["images"] for row in rows),
            **{side: (min(row[side] for row in rows), max(row[side] for row in rows)) for side in ("width", "height")},
        }
        for mode in dict.fromkeys(row["mode"] for row in formats)
        for rows in [[row for row in formats if row["mode"] == mode]]
    ]


def _grids(passed: bool, evaluated: bool) -> dict[str, list[Cell]]:
    """Choose the images to show: samples of each class, the best and worst predictions, and labels in doubt."""
    grids: dict[str, list[Cell]] = {"samples": [], "best": [], "worst": [], "suspects": []}
    if not passed or not (FOLDER / "dataset.json").exists():
        return grids
    class_names = Card.read().class_names
    train, test = Split.read("train"), Split.read("test")
    first: list[Place] = [("train", int(at)) for at in pictures.in_turn(train.labels, SHOWN)]
    grids["samples"] = _cells((place, class_names[train.labels[place[1]]]) for place in first)
    rows = _rows("reports/predictions.csv")
    if not evaluated or not rows:
        return grids
    right = np.array([row["actual"] == row["predicted"] for row in rows])
    loss = np.array([float(row["loss"]) for row in rows])
    order = np.argsort(loss, kind="stable")
    hits, misses = order[right[order]], order[~right[order]][::-1]
    best = hits[pictures.in_turn(test.labels[hits], SHOWN)]
    for name, chosen in (("best", best), ("worst", misses[:SHOWN])):
        grids[name] = _cells((("test", int(at)), said(rows[at])) for at in chosen)
    grids["suspects"] = _cells(
        ((split, int(row["index"])), f"labelled {row['label']}, looks like {row['predicted']}")
        for row in _rows("reports/suspects.csv")[:SHOWN]
        for split in SPLITS
        if split == row["split"]
    )
    return grids


def said(row: dict[str, str]) -> str:
    """Say what was predicted, and where that is wrong, what it is."""
    predicted = f"{row['predicted']} {float(row['confidence']):.0%}"
    return predicted if row["actual"] == row["predicted"] else f"{predicted}, is {row['actual']}"


def _cells(shown: Iterable[tuple[Place, str]]) -> list[Cell]:
    captions = dict(shown)
    named = names(captions.keys())
    images = {split: Split.read(split).images for split, _ in captions}
    return [
        {"src": _thumbnail(images[split][index]), "name": named[split, index], "caption": caption}
        for (split, index), caption in captions.items()
    ]


def _thumbnail(pixels: Images) -> str:
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return _uri("image/png", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


if __name__ == "__main__":
    main()
