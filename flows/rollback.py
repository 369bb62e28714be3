"""Put a model that was in service back there, after it has shown that it still answers.

Reads:  the registry
Writes: the registry: models/registry, or the folder in REGISTRY
Run:    python -m flows rollback --reason TEXT [--to VERSION]; without options REASON and TO
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flows.promotion import history, shared, store, tags
from flows.promotion.command import add_reason, ending, try_model
from flows.promotion.history import Conflict, Entry
from serving.champion import registry
from tasks.harness import section
from tasks.harness.errors import StageError
from tasks.params.export import Export


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows rollback", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--to",
        default=os.environ.get("TO") or None,
        metavar="DIGITS",
        help="the first digits of its SHA-256 (default: TO, else the model that the one in service has replaced)",
    )
    add_reason(parser)
    options = parser.parse_args(arguments)
    if not options.reason:
        parser.error('a reason is needed, which the history keeps: REASON="..."')
    with ending("rollback"):
        try:
            root = registry()
            rollback(root, section.load(Export).provider, options.to, options.reason)
            if said := tags.mirror(root):
                print(said)
        except Conflict as error:
            sys.exit(f"rollback: {error}")


def rollback(root: Path, provider: str, version: str | None, reason: str) -> Entry:
    """Put an earlier model back into service. Its files are compared with their digests, and it is tried, first.

    Args:
        version: the first digits of it; None: the model that the one in service replaced when it was promoted.

    Raises:
        StageError: there is no such model, it is in service, its files are damaged, or it does not answer as it did.
        Conflict: another model has been put into service meanwhile.
    """
    entries = shared.read(root)
    if not entries:
        raise StageError(f"no model is in service yet: {root} has no history")
    last = entries[-1]
    if version is None:
        promoted = next(entry for entry in reversed(entries) if (entry.action, entry.model) == ("promoted", last.model))
        if promoted.replaces is None:
            raise StageError(f"{last.version} is the first model: it has replaced none")
        version = promoted.replaces
    earlier = store.find(entries, version)
    if earlier.model == last.model:
        raise StageError(f"{last.version} is in service already, since {last.time[:16]}")
    verdict = try_model(shared.folder(root, earlier), provider)
    entry = replace(
        earlier,
        number=last.number + 1,
        time=history.now().isoformat(timespec="seconds"),
        action="rolled back",
        replaces=last.model,
        by=history.person(),
        reason=reason,
        forced=False,
        blessings={verdict.gate: verdict.outcome},
        rule=None,
        gain=None,
        p=None,
    )
    shared.append(root, entry)
    print(entry.line)
    return entry


if __name__ == "__main__":
    main()
