"""What has arrived since the model in service was trained, and whether a night may train on it."""

from pathlib import Path

import numpy as np

from flows.promotion import history, store
from flows.promotion.answers import answers, opened
from flows.promotion.history import AGAIN, Entry
from flows.promotion.judgement import Judgement
from serving.session import SessionError
from tasks.gates import drift
from tasks.gates.drift import Arrived
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.harness.records import read_record
from tasks.params.whole import Params
from tasks.prepared import Card, Split

MOST = 10_000  # arrivals whose pixels and answers are looked at


def look(root: Path, entries: list[Entry], params: Params) -> Verdict:
    """Compare the training images that the model in service was not trained on with those that it was.

    Raises:
        StageError: the registry is damaged.
    """
    if not entries:
        return Verdict("arrivals", "not run", ["no model is in service yet"])
    champion, card, train = entries[-1], Card.read(), Split.read("train")
    folder = store.check(root, champion)
    try:
        predictor = opened((folder / store.MODEL).read_bytes(), params.export.provider, f"version {champion.version}")
    except StageError as error:
        return Verdict("arrivals", "not run", [str(error)])
    if predictor.class_names != card.class_names or list(predictor.image_shape) != card.image_shape:
        what = f"{champion.version}, in service, has other classes or takes other images"
        return Verdict("arrivals", "not run", [what])
    reference, digests = store.read_reference(folder), store.digests(train.images)
    new = np.flatnonzero(np.isin(digests, reference.digests, invert=True))
    chosen = new[store.spread(len(new), MOST)]
    some = Split(train.images[chosen], train.labels[chosen])
    try:
        arrived = Arrived(
            statistics=drift.statistics(some.images),
            answers=answers(predictor, some, params.evaluate.batch_size),
            label_counts=np.bincount(train.labels[new], minlength=len(card.class_names)),
            gone=float(np.isin(reference.digests, digests, invert=True).mean()),
        )
    except SessionError as error:
        return Verdict("arrivals", "not run", [f"the model in service fails: {error}"])
    judged = read_record(folder / store.VERDICT, Judgement, AGAIN)
    accuracy = judged.blessing("quality").figures["accuracy"]
    assert isinstance(accuracy, float | int)
    return drift.judge(reference, arrived, accuracy, card.class_names, params.retraining.arrivals)


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
        blessings=[],
        remarks=remarks,
        arrivals=verdict,
    )
