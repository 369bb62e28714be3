"""Bring the model in service from the remote to this machine, and see that it answers here as it does there.

Reads:  DVC's default remote
Writes: the registry: models/registry, or the folder in REGISTRY
Run:    python -m flows pull_champion
"""

import argparse
from collections.abc import Sequence
from functools import partial

from flows.promotion import shared
from flows.promotion.command import ending, try_model
from serving.champion import registry
from serving.probe import MODEL
from tasks.harness import section
from tasks.params.export import Export


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows pull_champion", description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    with ending("pull-champion"):
        root, provider = registry(), section.load(Export).provider
        entry = shared.pull(root, partial(try_model, provider=provider))
        print(f"{root / entry.model / MODEL} is in service:\n{entry.line}")


if __name__ == "__main__":
    main()
