"""Proof of which execution provider runs a model: the one that was asked for, every node of it, or none answers."""

from collections import Counter

import onnxruntime

from serving.session import ProviderError


def prove(session: onnxruntime.InferenceSession, provider: str) -> int:
    """Return the number of nodes in the session's optimised graph, after checking that `provider` runs all of them.

    Args:
        session: that was opened with `record_nodes`.

    Raises:
        ProviderError: another provider runs some, or nothing is known about them.
    """
    placed = Counter[str]()
    for subgraph in session.get_provider_graph_assignment_info():
        placed[subgraph.ep_name] += len(subgraph.get_nodes())
    if set(placed) != {provider}:
        shares = ", ".join(f"{name} {count}" for name, count in placed.items()) or "no node at all"
        raise ProviderError(f"{provider} did not run the whole model; nodes by provider: {shares}")
    return placed[provider]
