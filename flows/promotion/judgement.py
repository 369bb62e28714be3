"""Whether a model may go into service: three blessings, and the file that says so, whatever they say.

A night that came to no model has such a file, too.

models/registry/verdicts/<time>-<version>.json and .html
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.promotion.history import AGAIN, DIGITS, Digest, Moment
from flows.report import templating
from tasks.gates.quality import Recall
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.harness.records import read_record, write_json
from tasks.harness.replacing import replacing

FOLDER = "verdicts"
NIGHT, STATE = "night", "ended as"  # what stands where the blessings would, and its figure
BLOCKED = "Blocked"


@dataclass(frozen=True)
class Judgement:
    """The contents of a verdict file."""

    time: Moment
    model: Digest | None  # None: there is none, because of what has arrived or of how the night ended
    champion: Digest | None  # the model in service then
    by: str
    dataset: str
    test_images: int
    looks: int  # at these test images so far
    limits: dict[str, Any]  # the section `retraining` of params.yaml
    test_set: str  # which test images these were, see flows/promotion/store.py
    blessings: list[Verdict]
    remarks: list[str]
    arrivals: Verdict | None  # what was found of the images that had come; None: nobody looked
    recalls: list[Recall] = field(default_factory=list)  # of both models by class, where they were compared

    @property
    def version(self) -> str:
        return self.model[:DIGITS] if self.model else self._state.lower()

    @property
    def _state(self) -> str:
        """As which a night ended that came to no model."""
        return next((str(verdict.figures[STATE]) for verdict in self.blessings if verdict.gate == NIGHT), BLOCKED)

    @property
    def passed(self) -> bool:
        return self.model is not None and all(verdict.passed for verdict in self.blessings)

    @property
    def headline(self) -> str:
        if self.model is None:
            arrived = ", because of what has arrived" if self.arrivals else ""
            return f"{self._state}: no model was {'trained' if arrived else 'put into service'}{arrived}"
        missing = [f"{verdict.gate} {verdict.outcome}" for verdict in self.blessings if not verdict.passed]
        return f"Refused: {', '.join(missing)}" if missing else "All three blessings passed"

    @property
    def reasons(self) -> list[str]:
        """Why the blessings that are missing are not there."""
        return [reason for verdict in self.blessings if not verdict.passed for reason in verdict.reasons]

    def blessing(self, gate: str) -> Verdict:
        return next(verdict for verdict in self.blessings if verdict.gate == gate)


def write(root: Path, judgement: Judgement) -> Path:
    """Write the verdict file and its page, and return the path of the page."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    moment = datetime.fromisoformat(judgement.time).strftime("%Y%m%dT%H%M%S.%fZ")
    page = folder / f"{moment}-{judgement.version}.html"
    with replacing(page) as partial:
        partial.write_text(render(judgement), encoding="utf-8")
    write_json(page.with_suffix(".json"), asdict(judgement))  # last: what `read_last` finds is whole
    return page


def read_last(root: Path) -> tuple[Judgement, Path] | None:
    """Read the last verdict file; None: there is none yet.

    Raises:
        StageError: it is not what `write` wrote.
    """
    paths = sorted((root / FOLDER).glob("*.json"))
    return (read_record(paths[-1], Judgement, AGAIN), paths[-1]) if paths else None


def last_by(root: Path, by: str) -> tuple[Judgement, Path] | None:
    """Read the last verdict file, if it is of what that run, or person, has judged; one that cannot be read is not."""
    with suppress(StageError, OSError):
        last = read_last(root)
        if last and last[0].by == by:
            return last
    return None


def worse(root: Path, model: str, champion: str | None, limits: dict[str, Any], test_set: str) -> Judgement | None:
    """Return the verdict by which a model was found not good enough beside that champion, by these limits and images.

    None: there is none that can be read, and it is to be judged. What else was missing then may be there now.
    """
    wanted = (model, champion, limits, test_set)
    for path in sorted((root / FOLDER).glob(f"*-{model[:DIGITS]}.json"), reverse=True):
        with suppress(StageError):
            found = read_record(path, Judgement, AGAIN)
            same = (found.model, found.champion, found.limits, found.test_set) == wanted
            if same and found.blessing("quality").outcome == "failed":
                return found
    return None


def render(judgement: Judgement) -> str:
    """Return the page."""
    template = templating.environment(html=True).get_template("verdict.html.jinja")
    return template.render(judgement=judgement)
