"""Judge a candidate: is it good enough, does it predict what was trained, does it run where it will be served?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from flows.promotion import history, looks, shared, store
from flows.promotion.answers import answers, difference, opened
from flows.promotion.candidate import Candidate
from flows.promotion.history import Entry
from flows.promotion.judgement import Judgement
from serving.probe import MODEL
from serving.session import SessionError
from tasks.gates import quality, serving
from tasks.gates.drift import Digests
from tasks.gates.quality import Answers, Recall
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.params.whole import Params
from tasks.prepared import Card, Split

PAUSE = timedelta(days=30)  # between two models that go into service by the rule `not_worse`


@dataclass(frozen=True)
class Judged:
    """A candidate that has been judged."""

    judgement: Judgement
    golden: dict[str, Any]  # contents of golden.json


def judge(
    root: Path,
    candidate: Candidate,
    entries: list[Entry],
    params: Params,
    by: str,
    remarks: Sequence[str] = (),
    arrivals: Verdict | None = None,
) -> Judged:
    """Judge a candidate against the model in service, the last of `entries`.

    Args:
        remarks: what else a person is to look at.
        arrivals: what was found of the images that have come since the model in service was trained.

    Raises:
        StageError: the candidate cannot be judged on these data, or the registry is damaged.
    """
    card, test = Card.read(), Split.read("test")
    own = _answers(candidate.onnx, candidate.version, card, test, params)
    digests = store.digests(test.images)
    golden = serving.golden(test.images, own, card.class_names)
    quality_of, recalls = _quality(root, candidate, own, digests, card, test, entries, params)
    blessings = [
        quality_of,
        candidate.parity,
        serving.gate(candidate.onnx, golden, params.export.provider, params.retraining),
    ]
    looked = looks.count(root, card.name, digests)
    remarks = list(remarks)
    if looked >= looks.MANY:
        remarks.append(
            f"{looked} models have been judged on these test images: a winner may be one by accident; take new ones"
        )
    judgement = Judgement(
        time=history.now().isoformat(),
        model=candidate.digest,
        champion=entries[-1].model if entries else None,
        by=by,
        dataset=card.name,
        test_images=len(test.labels),
        looks=looked,
        limits=params.retraining.model_dump(),
        test_set=store.name_of(digests),
        blessings=blessings,
        remarks=remarks,
        arrivals=arrivals,
        recalls=recalls,
    )
    return Judged(judgement, golden)


def _answers(model: bytes, version: str, card: Card, test: Split, params: Params) -> Answers:
    """Have a model answer all test images.

    Raises:
        StageError: it cannot, as it has other classes, takes other images, or fails.
    """
    predictor = opened(model, params.export.provider, f"version {version}")
    if what := difference(predictor, card):
        raise StageError(f"version {version} cannot be judged on data/prepared: {what}")
    try:
        return answers(predictor, test, params.evaluate.batch_size)
    except SessionError as error:
        raise StageError(f"version {version} fails on test images: {error}") from None


def _quality(
    root: Path,
    candidate: Candidate,
    own: Answers,
    digests: Digests,
    card: Card,
    test: Split,
    entries: list[Entry],
    params: Params,
) -> tuple[Verdict, list[Recall]]:
    """Compare the answers of a candidate with those of the model in service to the same images.

    Images are left out that one of them was trained on. Where the model in service cannot answer, nothing is compared.
    """
    if not entries:
        return quality.judge(card.class_names, own, None, params.retraining), []
    champion = entries[-1]
    last = last_better(entries) if params.retraining.rule == "not_worse" else None
    known = [candidate.training_digests()]
    found: dict[str, Answers] = {}
    try:
        for entry in filter(None, (champion, last)):
            folder = shared.folder(root, entry)
            model = (folder / MODEL).read_bytes()
            found[entry.model] = _answers(model, entry.version, card, test, params)
            known.append(store.read_reference(folder).digests)
    except StageError as error:
        reason = f"the model in service, {champion.version}, cannot be compared: {error}"
        return Verdict("quality", "not run", [reason], {"accuracy": own.accuracy}), []
    unseen = np.isin(digests, np.concatenate(known), invert=True)
    if not unseen.any():
        reason = f"{champion.version}, in service, was trained on all of the test images"
        return Verdict("quality", "not run", [reason], {"accuracy": own.accuracy}), []
    since = found[last.model] if last else None
    verdict = quality.judge(card.class_names, own, found[champion.model], params.retraining, since, unseen)
    recalls = quality.recalls(card.class_names, own.of(unseen), found[champion.model].of(unseen))
    if verdict.passed and params.retraining.rule == "not_worse" and (early := too_soon(root, entries, digests)):
        verdict = Verdict("quality", "not run", early, verdict.figures)  # not failed: it may be judged again in time
    return verdict, recalls


def too_soon(root: Path, entries: list[Entry], digests: Digests) -> list[str]:
    """Say why no model may go into service as not worse yet; none: one may.

    Each may lose a little, and the oftener it is tried on the same images the likelier one does: Feng et al.,
    Biometrics 77(1), 2021. So time has to pass, and images have to come.

    Args:
        digests: of the test images, compared with those that the last such model was first judged on.
    """
    last = next((one for one in reversed(entries) if (one.action, one.rule) == ("promoted", "not_worse")), None)
    if last is None:
        return []
    since, otherwise = f"{last.version} came in as not worse at {last.time[:16]} UTC", "by the rule better any time"
    reasons = []
    if history.now() - datetime.fromisoformat(last.time) < PAUSE:
        reasons.append(f"{since}, and one model may in {PAUSE.days} days; {otherwise}")
    try:
        then = store.read_reference(shared.folder(root, last)).test_digests
    except StageError as error:
        return [*reasons, f"{since}, on images that cannot be told: {error}; {otherwise}"]
    if then is None:
        return [*reasons, f"{since}, on images that were not kept; {otherwise}"]
    if (new := float(np.isin(digests, then, invert=True).mean())) < looks.NEW:
        needed = f"{new:.0%} of the test images are new, {looks.NEW:.0%} have to be"
        reasons.append(f"{since}; since then {needed}; {otherwise}")
    return reasons


def last_better(entries: list[Entry]) -> Entry | None:
    """Return the last entry whose model was found better than the one before it, or was the first one.

    One that a rollback has taken back is none, unless it has come back since.
    """
    taken_back: set[str | None] = set()
    for entry in entries:
        if entry.action == "rolled back":
            taken_back.add(entry.replaces)
        taken_back.discard(entry.model)
    return next((one for one in reversed(entries) if _was_better(one) and one.model not in taken_back), None)


def _was_better(entry: Entry) -> bool:
    return entry.replaces is None or (entry.rule == "better" and entry.blessings.get("quality") == "passed")
