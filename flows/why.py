"""What was said of the model that was judged last: the blessings, their figures, and what would have passed.

Reads:  the registry: models/registry, or the folder in REGISTRY
Run:    python -m flows why
"""

import argparse
import sys
from collections.abc import Sequence

from flows.promotion import history, judgement
from flows.promotion.judgement import Judgement
from flows.report import summary
from flows.report.verdicts import figure
from serving.champion import registry
from tasks.harness import section
from tasks.harness.errors import ParamsError, StageError


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows why", description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    root = registry()
    try:
        section.read()  # this is the project's folder
        last, entries = judgement.read_last(root), history.read(root)
    except (ParamsError, StageError, OSError) as error:
        sys.exit(f"why: {error}")
    if last is None:
        print(
            f"No model has been judged yet: {root / judgement.FOLDER} is empty. make promote judges what is in models/"
        )
        return
    found, path = last
    print(text(found))
    if forced := [entry for entry in entries if entry.forced and entry.model == found.model]:
        print(f"\nin service by force: {forced[-1].line}")
    print(f"\n{path.with_suffix('.html')}")


def text(found: Judgement) -> str:
    """Lay out a judgement for a terminal."""
    champion, when = found.champion and found.champion[: history.DIGITS], f"{found.time[:16]} UTC, by {found.by}"
    against = f"against {champion}" if champion else "the first"
    looks = f", look {found.looks} at them" if found.looks else ""
    looked = f"{found.test_images:,} test images of {found.dataset}{looks}"
    rows = [
        found.headline,
        *(
            [summary.row("candidate", f"{found.version}, {against}, {when}"), summary.row("judged on", looked)]
            if found.model
            else [summary.row("night", f"{when}, on {found.dataset}"), summary.row("in service", champion or "none")]
        ),
        *(summary.row("look at", remark) for remark in found.remarks),
    ]
    for verdict in (*([found.arrivals] if found.arrivals else []), *found.blessings):
        rows.append(f"\n{verdict.gate}: {verdict.outcome}")
        rows += [summary.row("", reason) for reason in verdict.reasons]
        rows += [f"  {name:<45}{figure(value)}" for name, value in verdict.figures.items()]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
