"""Judge a model, and put it into service if all three blessings pass.

Reads:  models/ and what the run that made them left, or a version in the registry; the registry
Writes: the registry: models/registry, or the folder in REGISTRY
Run:    python -m flows promote [--version VERSION] [--reason TEXT] [--force]; without options VERSION, REASON and FORCE
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

from flows.promotion import history, judgement, shared, store, tags, waiting
from flows.promotion.answers import opened
from flows.promotion.candidate import Candidate, of_models, of_registry
from flows.promotion.command import add_reason, ending
from flows.promotion.history import DIGITS, Conflict, Entry
from flows.promotion.judge import Judged, judge
from flows.report import summary, verdicts
from flows.runtime import checkout, project_lock
from flows.runtime.project_lock import ProjectLocked
from serving.champion import registry
from serving.probe import GOLDEN
from serving.session import SessionError
from tasks.gates.verdict import Verdict
from tasks.harness.errors import StageError
from tasks.harness.records import to_json
from tasks.params import whole
from tasks.params.whole import Params
from tasks.prepared import Split


class Refused(Exception):
    """A blessing is missing."""


class Waits(Exception):
    """All three are there, and a person is to approve."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows promote", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--version",
        default=os.environ.get("VERSION") or None,
        metavar="DIGITS",
        help="one that has been in service, or waits: its first digits (default: VERSION, else what is in models/)",
    )
    add_reason(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        default=_forced(os.environ.get("FORCE", "")),
        help="though a blessing is missing; needs a reason, and the history keeps both for ever (FORCE=1)",
    )
    options = parser.parse_args(arguments)
    if options.force is None:
        parser.error(f"FORCE={os.environ['FORCE']!r} is neither 1 nor 0")
    if options.force and not options.reason:
        parser.error('by force only with a reason, which the history keeps: FORCE=1 REASON="..."')
    with ending("promote"):
        try:
            checkout.check()
            with project_lock.hold():
                root, params, version = registry(), whole.load(), options.version
                candidate = of_registry(root, find(root, version)) if version else of_models()
                promote(root, params, candidate, options.reason, options.force)
                if said := tags.mirror(root):
                    print(said)
        except Refused as refused:
            sys.exit(f'promote: {refused}. FORCE=1 REASON="..." does it all the same')
        except ProjectLocked as error:
            sys.exit(f"promote: {error.holder} is at work; its model can be judged when it has ended")


def find(root: Path, version: str) -> Entry:
    """Return the entry of a model that has been in service, or the one that a model which waits would have.

    Raises:
        StageError: its first digits, `version`, are those of no model, or of several.
    """
    return store.find([*shared.read(root), *waiting.read(root)], version)


def _forced(text: str) -> bool | None:
    return {"": False, "0": False, "1": True}.get(text)


def promote(
    root: Path,
    params: Params,
    candidate: Candidate,
    reason: str | None = None,
    force: bool = False,
    by: str | None = None,
    remarks: Sequence[str] = (),
    arrivals: Verdict | None = None,
    wait: bool = False,
) -> Entry | None:
    """Judge a model, write what was said of it to a verdict file, and put it into service.

    Args:
        wait: keep it and have it wait for a person instead.
        by: who does; None: the person who runs this process.
        remarks: what else the verdict is to say.
        arrivals: what was found of the images that have come since the model in service was trained.

    Returns:
        The entry in the history; None: the model is in service already.

    Raises:
        Refused: a blessing is missing, and it is not to be forced.
        Waits: it passes, and is to wait.
        StageError: the model cannot be judged, or the registry is damaged.
    """
    while True:
        entries = shared.read(root)
        if entries and entries[-1].model == candidate.digest:
            waiting.remove(root, candidate.digest)
            print(f"{candidate.version} is in service already, since {entries[-1].time[:16]}")
            return None
        judged = judge(root, candidate, entries, params, by or history.person(), remarks, arrivals)
        page = judgement.write(root, judged.judgement)
        print(lines(judged, page), flush=True)
        if not (judged.judgement.passed or force):
            raise Refused(f"{judged.judgement.headline}; {candidate.version} is not put into service")
        entry = entered(root, candidate, judged, entries, params, reason)
        if wait:
            waiting.add(root, entry)
            raise Waits(f'{entry.version} waits: make promote VERSION={entry.version} REASON="..."')
        try:
            shared.append(root, entry)
            print(entry.line)
            waiting.remove(root, entry.model)
            return entry
        except Conflict as conflict:
            print(f"{conflict} meanwhile; judged again, against the model that is in service now", flush=True)


def entered(
    root: Path, candidate: Candidate, judged: Judged, entries: list[Entry], params: Params, reason: str | None
) -> Entry:
    """Keep the model's files, and return the entry that follows `entries` once it is made.

    Raises:
        StageError: the model has been in service, and its folder is damaged.
    """
    found = judged.judgement
    quality = found.blessing("quality")
    if earlier := [entry for entry in entries if entry.model == candidate.digest]:
        shared.folder(root, earlier[-1])
    files = store.put(
        root,
        candidate.digest,
        {
            **candidate.files,
            GOLDEN: to_json(judged.golden).encode(),
            store.VERDICT: to_json(asdict(found)).encode(),
            store.REFERENCE: partial(reference, candidate, params),
        },
    )
    gain, p, rule = (quality.figures.get(name) for name in ("gain", "p", "rule"))
    return Entry(
        number=len(entries) + 1,
        time=history.now().isoformat(timespec="seconds"),
        action="promoted",
        replaces=entries[-1].model if entries else None,
        model=candidate.digest,
        size=len(candidate.onnx),
        files=files,
        by=found.by,
        reason=reason,
        forced=not found.passed,
        blessings={verdict.gate: verdict.outcome for verdict in found.blessings},
        rule=rule if isinstance(rule, str) else None,
        gain=gain if isinstance(gain, float) else None,
        p=p if isinstance(p, float) else None,
    )


def reference(candidate: Candidate, params: Params) -> bytes:
    """Describe the images, and what the model makes of those that it was trained on."""
    predictor = opened(candidate.onnx, params.export.provider, f"version {candidate.version}")
    try:
        return store.reference(Split.read("train"), Split.read("test"), predictor, params.evaluate.batch_size)
    except SessionError as error:
        raise StageError(f"version {candidate.version} fails on training images: {error}") from None


def lines(judged: Judged, page: Path) -> str:
    """Lay out what was said of a candidate."""
    found = judged.judgement
    against = f"against {found.champion[:DIGITS]}" if found.champion else "the first: there is none in service"
    rows = [
        ("candidate", f"{found.version}, {against}"),
        *chain.from_iterable(map(blessing, found.blessings)),
        *(("look at", remark) for remark in found.remarks),
        ("verdict", str(page)),
    ]
    return "\n".join(summary.row(name, value) for name, value in rows)


def blessing(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Say what came of a blessing: its figures, or each reason why it is missing in a row of its own."""
    if verdict.passed:
        yield verdict.gate, verdicts.line(verdict)
    else:
        yield verdict.gate, verdict.outcome
        yield from (("", reason) for reason in verdict.reasons)


if __name__ == "__main__":
    main()
