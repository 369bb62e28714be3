"""Judge a candidate: is it good enough, does it predict what was trained, does it run where it will be served?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from flows.promotion import looks, store
from flows.promotion.answers import answers, opened
from flows.promotion.candidate import Candidate
from flows.promotion.history import DIGITS, Entry
from flows.promotion.judgement import Judgement
from serving.model import Predictor
from serving.session import SessionError
from tasks.gates import quality, serving
from tasks.gates.drift import Digests
from tasks.gates.quality import Answers
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError, listed
from tasks.params.whole import Params
from tasks.prepared import Card, Split

NAMED = 5  # classes in a message


@dataclass(frozen=True)
class Judged:
    """A candidate that has been judged."""

    judgement: Judgement
    golden: dict[str, Any]  # contents of golden.json
    predictor: Predictor


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
    predictor = opened(candidate.onnx, params.export.provider)
    if predictor.class_names != card.class_names or list(predictor.image_shape) != card.image_shape:
        raise StageError(
            f"version {candidate.digest[:DIGITS]} cannot be judged on data/prepared: "
            + _difference(predictor, card.class_names, card.image_shape)
        )
    try:
        own = answers(predictor, test, params.evaluate.batch_size)
    except SessionError as error:
        raise StageError(str(error)) from None
    digests = store.digests(test.images)
    golden = serving.golden(test.images, test.labels, own.probabilities.argmax(1), card.class_names)
    champion = entries[-1] if entries else None
    blessings = [
        _quality(root, own, test, digests, card.class_names, entries, params),
        candidate.parity,
        serving.gate(candidate.onnx, golden, params.export.provider, params.retraining),
    ]
    looked = looks.count(root, digests)
    remarks = list(remarks)
    if looked >= looks.MANY:
        remarks.append(
            f"{looked} models have been judged on these test images: a winner may be one by accident; take new ones"
        )
    judgement = Judgement(
        time=datetime.now(UTC).isoformat(),
        model=candidate.digest,
        champion=champion.model if champion else None,
        by=by,
        dataset=card.name,
        test_images=len(test.labels),
        looks=looked,
        blessings=blessings,
        remarks=remarks,
        arrivals=arrivals,
    )
    return Judged(judgement, golden, predictor)


def _quality(
    root: Path,
    own: Answers,
    test: Split,
    digests: Digests,
    class_names: list[str],
    entries: list[Entry],
    params: Params,
) -> Verdict:
    """Compare the answers of a candidate with those of the model in service to the same images.

    Those are left out that the model in service was trained on.
    """
    if not entries:
        return quality.judge(class_names, own, None, params.retraining)
    champion = entries[-1]
    folder = store.check(root, champion)
    predictor = opened((folder / store.MODEL).read_bytes(), params.export.provider)
    if predictor.class_names != class_names or predictor.image_shape != test.images.shape[1:]:
        what = _difference(predictor, class_names, list(test.images.shape[1:]))
        return Verdict(
            "quality", "not run", [f"the model in service, {champion.model[:DIGITS]}, cannot be compared: {what}"]
        )
    unseen = np.isin(digests, store.read_reference(folder).digests, invert=True)
    if not unseen.any():
        return Verdict(
            "quality", "not run", [f"{champion.model[:DIGITS]}, in service, was trained on all of the test images"]
        )
    test = Split(test.images[unseen], test.labels[unseen])
    own = Answers(own.probabilities[unseen], test.labels)

    def of(entry: Entry) -> Answers:
        model = (store.check(root, entry) / store.MODEL).read_bytes()
        return answers(opened(model, params.export.provider), test, params.evaluate.batch_size)

    try:
        last = _last_better(entries) if params.retraining.rule == "not_worse" else None
        return quality.judge(class_names, own, of(champion), params.retraining, of(last) if last else None)
    except SessionError as error:
        return Verdict("quality", "not run", [f"the model in service fails: {error}"])


def _last_better(entries: list[Entry]) -> Entry | None:
    """Return the last entry whose model was found better than the one before it, or was the first; not a rollback."""
    return next((entry for entry in reversed(entries) if entry.rule == "better" or entry.replaces is None), None)


def _difference(predictor: Predictor, class_names: list[str], image_shape: list[int]) -> str:
    height, width, channels = predictor.image_shape
    if predictor.class_names != class_names:
        its, those = (listed(names, NAMED) for names in (predictor.class_names, class_names))
        return f"its classes are {its}, those of the data {those}"
    return (
        f"it takes images of {height} x {width} x {channels}, those of the data are {' x '.join(map(str, image_shape))}"
    )
