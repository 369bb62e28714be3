"""What a night has judged, for Prefect's UI: the verdict, the candidate beside the model in service, the page."""

from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.promotion.history import DIGITS
from flows.promotion.judgement import Judgement
from flows.report import templating
from flows.report.verdicts import figure
from flows.runtime import labels
from tasks.gates.verdict import Figure

COMPARED = ("calibration error", "log loss")


def publish(judged: Judgement, page: Path) -> None:
    """Create Prefect's artifacts of a verdict, of which `page` is the page."""
    verdict = templating.environment(html=False).get_template("verdict.md.jinja").render(judgement=judged)
    create_markdown_artifact(key=labels.key("verdict"), description=judged.headline, markdown=verdict)
    if table := comparison(judged):
        create_table_artifact(
            key=labels.key("comparison"), description="The candidate beside the model in service", table=table
        )
    create_link_artifact(
        key=labels.key("verdict-page"),
        link=page.absolute().as_uri(),
        link_text=str(page),
        # A click does nothing: no browser follows a link from a page of the network to a file.
        description="The same as a page, a file where the night ran: copy the link into a browser's address bar there",
    )


def comparison(judged: Judgement) -> list[dict[str, str]]:
    """Lay out what was measured of the candidate and the model in service on the same test images; none: no rows."""
    quality = next((verdict for verdict in judged.blessings if verdict.gate == "quality"), None)
    if quality is None or judged.champion is None or "gain" not in quality.figures:
        return []
    found = quality.figures
    accuracy, gain = (float(found[name] or 0) for name in ("accuracy of the champion", "gain"))
    # The candidate's own figure is of all test images, and of these some may have been left out.
    rows: dict[str, tuple[Figure, Figure]] = {"accuracy": (f"{accuracy + gain:.2%}", f"{accuracy:.2%}")}
    rows |= {name: (found[name], found[f"{name} of the champion"]) for name in COMPARED}
    rows |= {
        "images that it alone knows": (found["better"], found["worse"]),
        "test images": (found["images"], found["images"]),
    }
    rows |= {
        f"recall of {one.name}, {one.images:,} images": (f"{one.candidate:.2%}", f"{one.champion:.2%}")
        for one in judged.recalls
    }
    names = f"candidate {judged.version}", f"in service {judged.champion[:DIGITS]}"
    return [{"figure": name, **dict(zip(names, map(figure, both), strict=True))} for name, both in rows.items()]
