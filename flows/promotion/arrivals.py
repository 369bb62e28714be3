"""What has arrived since the model in service was trained, and whether a night may train on it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from flows.promotion import history, shared, store
from flows.promotion.answers import answers, difference, opened
from flows.promotion.history import AGAIN, Entry
from flows.promotion.judgement import Judgement
from serving.probe import MODEL
from serving.session import SessionError
from tasks.gates import drift
from tasks.gates.drift import Arrived, Recorded
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.harness.records import read_record
from tasks.params.whole import Params
from tasks.prepared import Card, Split, spread

MOST = 10_000  # arrivals whose pixels and answers are looked at


def look(root: Path, entries: list[Entry], params: Params) -> Verdict:
    """Compare the training images that the model in service was not trained on with those that it was.

    Raises:
        StageError: the registry is damaged.
    """
    if not entries:
        return _not_run("no model is in service yet")
    champion, card, train, limits = entries[-1], Card.read(), Split.read("train"), params.retraining.arrivals
    folder = shared.folder(root, champion)
    try:
        predictor = opened((folder / MODEL).read_bytes(), params.export.provider, f"version {champion.version}")
    except StageError as error:
        return _not_run(str(error))
    if difference(predictor, card) or predictor.resize != card.resize:
        return _not_run(f"{champion.version}, in service, has other classes, or takes other images")
    judged = read_record(folder / store.VERDICT, Judgement, AGAIN)
    accuracy = judged.blessing("quality").figures.get("accuracy")
    if not isinstance(accuracy, float | int):
        return _not_run(f"no accuracy of {champion.version} was recorded")

    reference, digests = store.read_reference(folder), store.digests(train.images)
    # An image that is held out now is not gone.
    here = np.concatenate([digests, *(store.digests(Split.read(name).images) for name in ("validation", "test"))])
    gone = float(np.isin(reference.digests, here, invert=True).mean())
    if reasons := drift.gone(gone, limits):
        return Verdict("arrivals", "failed", reasons, {"training images that are gone": gone})
    new = np.flatnonzero(np.isin(digests, reference.digests, invert=True))
    if len(new) < limits.min_images:
        few = f"{len(new):,} images have arrived, and retraining.arrivals.min_images is {limits.min_images:,}"
        return Verdict("arrivals", "not run", [few], {"arrivals": len(new), "training images that are gone": gone})
    chosen = new[spread(len(new), MOST)]
    try:
        own = answers(predictor, train, params.evaluate.batch_size, chosen)
    except SessionError as error:
        return _not_run(f"{champion.version}, in service, fails: {error}")
    counts = np.bincount(train.labels[new], minlength=len(card.class_names))
    arrived = Arrived(drift.statistics(train.images, chosen), own, counts)
    verdict = drift.judge(reference, arrived, Recorded(accuracy, judged.test_images), card.class_names, limits)
    return replace(verdict, figures={**verdict.figures, "training images that are gone": gone})


def _not_run(reason: str) -> Verdict:
    return Verdict("arrivals", "not run", [reason])


def blocked(verdict: Verdict, entries: list[Entry], params: Params, by: str, remarks: list[str]) -> Judgement:
    """Say that nothing was trained."""
    card = Card.read()
    return Judgement(
        time=history.now().isoformat(),
        model=None,
        champion=entries[-1].model if entries else None,
        by=by,
        dataset=card.name,
        test_images=card.sizes["test"],
        looks=0,
        limits=params.retraining.model_dump(),
        test_set=store.name_of(store.digests(Split.read("test").images)),
        blessings=[],
        remarks=remarks,
        arrivals=verdict,
    )
