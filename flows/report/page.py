"""The present state of the pipeline as a page: what went in, what came out, and what is new since the last run.

Reads:  params.yaml, recipes/, data/prepared/, reports/, and the run before this one in .cache/
Writes: reports/report.html, all in one file, and reports/report.md, for a pull request
Run:    python -m flows report
"""

import argparse
import base64
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flows import recipes
from flows.recipes import Reaches
from flows.report import charts, differences, summary, templating, verdicts
from flows.report.differences import Comparison
from flows.report.verdicts import figure
from flows.runtime import checkout, project_lock
from flows.runtime.project_lock import ProjectLocked
from tasks.dvc import stale
from tasks.evaluation import pictures, tables
from tasks.evaluation.record import Evaluation
from tasks.harness import section
from tasks.harness.errors import ParamsError, StageError
from tasks.harness.section import PARAMS
from tasks.params.quantize import Quantize
from tasks.prepared import FOLDER, SPLITS, Card, ImageId, Images, Split, names
from tasks.training.record import Epochs

HTML, MARKDOWN = Path("reports/report.html"), Path("reports/report.md")
WAITS = "This is shown once everything is up to date."  # the comparison
IMAGES_OF_A_KIND = 20
MAX_ROWS = 50  # of a table
MAX_CONFUSED = 3  # pairs of classes after an epoch
MAX_SUSPECTS = 10  # in report.md
THUMBNAIL = 160  # pixels, the longer side of an image at most

Cell = dict[str, str]  # src, name, caption


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows report", description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    try:
        checkout.check()
        with project_lock.hold():
            context = gather()
            for path in (HTML, MARKDOWN):
                path.write_text(render(path, context), encoding="utf-8")
    except ProjectLocked as error:
        sys.exit(f"report: {error.holder} is at work; there is one to write when it has ended")
    except (ParamsError, StageError) as error:
        sys.exit(f"report: {error}")
    print(f"{context['headline']}\n{HTML}\n{MARKDOWN}")


def gather() -> dict[str, Any]:
    """Collect all that the templates show; None where a stage has not left it.

    Raises:
        StageError: no stage has left anything, or DVC cannot tell whether it is of one run.
    """
    data = summary.read_data()
    if data is None:
        raise StageError(f"there is no {summary.DATA} yet: make run")
    passed = data.passed  # else what else there is belongs to another run
    metrics = summary.read_evaluation() if passed else None
    found = verdicts.read()
    int8 = [verdicts.read_int8(found)] if section.load(Quantize).to else []
    changed = stale()
    run = summary.read_run()
    if run and not (passed and run.dvc_lock == summary.lock_digest()):
        run = None  # it made other figures
    evaluated = metrics is not None and "evaluate" not in changed
    served = summary.served(metrics, found) if metrics else None
    remarks = summary.remarks(data, served) if served else []
    proven = all(verdict.passed for verdict in found)
    return {
        "headline": out_of_date(changed) if proven and changed else verdicts.headline(found, remarks),
        "colour": "stop" if changed or not proven else "look" if remarks else "live",
        "changed": changed,
        "verdicts": [*found, *int8],
        "data": data,
        "totals": summary.totals(data),
        "metrics": metrics,
        "served": served,
        "temperature": summary.temperature(found),
        "run": run,
        "parameters": PARAMS.read_text(encoding="utf-8"),
        "recipe": recipes.nearest(section.read()),
        "comparison": Comparison(WAITS) if changed else differences.with_run_before(run),
        "remarks": remarks,
        "sizes": _sizes(data.formats),
        "doubted": _rows("reports/suspects.csv")[:MAX_SUSPECTS] if evaluated else [],
        "confused": charts.most_confused(metrics.confusion_matrix, list(metrics.per_class)) if metrics else [],
        **_epochs(metrics),
        "charts": _charts(metrics),
        **_grids(passed, evaluated),
    }


def out_of_date(changed: list[str]) -> str:
    return f"Out of date: {changed[0]} and what follows it would run again"


def render(path: Path, context: dict[str, Any]) -> str:
    """Fill in the template of `path`, report.html or report.md."""
    environment = templating.environment(html=path.suffix == ".html")
    environment.filters |= {"change": change, "digits": digits, "revision": revision}
    environment.globals |= {"MAX_ROWS": MAX_ROWS, "expected": expected}
    return environment.get_template(f"{path.name}.jinja").render(context)


def change(number: float | None) -> str:
    """Write how much more a value is; nothing where that cannot be said."""
    return "" if number is None else f"{'+' if number > 0 else ''}{figure(number)}"


def expected(reaches: Reaches | None) -> str:
    """Say what a recipe should reach."""
    if reaches is None:
        return "What it should reach has not been measured."
    lowest, highest = (f"{share:.1%}" for share in reaches.accuracy)
    accuracy = lowest if lowest == highest else f"{lowest} to {highest}"
    time = "" if reaches.train_s is None else f", trained in {reaches.train_s:,.0f} s"
    return f"It should reach {accuracy} of the test images: n = {reaches.n}{time}, on {reaches.hardware}."


def digits(number: float | None, form: str) -> str:
    """Write a number in a form of Python's; one that is missing, as it was not finite or not taken, as a dash."""
    return "-" if number is None else format(number, form)


def revision(commit: str) -> str:
    """Shorten a commit to ten digits, which git takes for it; `-dirty` stays."""
    digits, dash, dirty = commit.partition("-")
    return f"{digits[:10]}{dash}{dirty}"


def _rows(path: str) -> list[dict[str, str]]:
    return tables.read(Path(path)) if Path(path).exists() else []


def _epochs(metrics: Evaluation | None) -> dict[str, Any]:
    """Collect what the best and the last epoch came to on the validation split."""
    if metrics is None:
        return {}
    epochs, class_names = Epochs.read(), list(metrics.per_class)
    return {
        "kept": epochs.kept,
        "epochs": [("best epoch", epochs.best), ("last epoch", epochs.last)],
        "most_confused": lambda epoch: charts.most_confused(epoch.confusion_matrix, class_names, MAX_CONFUSED),
    }


def _charts(metrics: Evaluation | None) -> dict[str, str]:
    if metrics is None:
        return {}
    curve = [{name: float(text) for name, text in row.items()} for row in _rows("reports/learning_curve.csv")]
    figures = {
        "learning_curve": charts.learning_curve(curve),
        "calibration": charts.calibration(metrics),
        "confusion_matrix": charts.confusion_matrix(metrics.confusion_matrix, list(metrics.per_class)),
    }
    return {name: _uri("image/svg+xml", charts.svg(figure)) for name, figure in figures.items()}


def _sizes(formats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum up formats by mode: how many images, and from which to which size."""
    by_mode: dict[str, list[dict[str, Any]]] = {}
    for row in formats:
        by_mode.setdefault(row["mode"], []).append(row)
    return [
        {
            "mode": mode,
            "images": sum(row["images"] for row in rows),
            **{side: (min(row[side] for row in rows), max(row[side] for row in rows)) for side in ("width", "height")},
        }
        for mode, rows in by_mode.items()
    ]


def _grids(passed: bool, evaluated: bool) -> dict[str, list[Cell]]:
    """Choose the images to show: samples of each class, the best and worst predictions, and labels in doubt."""
    grids: dict[str, list[Cell]] = {"samples": [], "best": [], "worst": [], "suspects": []}
    if not passed or not (FOLDER / "dataset.json").exists():
        return grids
    class_names = Card.read().class_names
    train, test = Split.read("train"), Split.read("test")
    first: list[ImageId] = [("train", int(index)) for index in pictures.in_turn(train.labels, IMAGES_OF_A_KIND)]
    grids["samples"] = _cells((image, class_names[train.labels[image[1]]]) for image in first)
    rows = _rows("reports/predictions.csv")
    if not evaluated or not rows:
        return grids
    right = np.array([row["actual"] == row["predicted"] for row in rows])
    loss = np.array([float(row["loss"]) for row in rows])
    order = np.argsort(loss, kind="stable")
    hits, misses = order[right[order]], order[~right[order]][::-1]
    best = hits[pictures.in_turn(test.labels[hits], IMAGES_OF_A_KIND)]
    for name, chosen in (("best", best), ("worst", misses[:IMAGES_OF_A_KIND])):
        grids[name] = _cells((("test", int(index)), caption(rows[index])) for index in chosen)
    grids["suspects"] = _cells(
        ((split, int(row["index"])), f"labelled {row['label']}, looks like {row['predicted']}")
        for row in _rows("reports/suspects.csv")[:IMAGES_OF_A_KIND]
        for split in SPLITS
        if split == row["split"]
    )
    return grids


def caption(row: dict[str, str]) -> str:
    """Say what was predicted, and where that is wrong, what it is."""
    predicted = f"{row['predicted']} {float(row['confidence']):.0%}"
    return predicted if row["actual"] == row["predicted"] else f"{predicted}, is {row['actual']}"


def _cells(captioned: Iterable[tuple[ImageId, str]]) -> list[Cell]:
    captions = dict(captioned)
    named = names(captions.keys())
    images = {split: Split.read(split).images for split, _ in captions}
    return [
        {"src": _thumbnail(images[split][index]), "name": named[split, index], "caption": text}
        for (split, index), text in captions.items()
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
