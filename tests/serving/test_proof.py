"""A provider answers for all nodes of a model, or is refused."""

from types import SimpleNamespace

import pytest

from serving.proof import prove
from serving.session import ProviderError


@pytest.mark.parametrize(
    ("placed", "shares"),
    [
        ({"CPUExecutionProvider": 3}, "CPUExecutionProvider 3"),
        ({"CUDAExecutionProvider": 2, "CPUExecutionProvider": 1}, "CUDAExecutionProvider 2, CPUExecutionProvider 1"),
        ({}, "no node at all"),
    ],
)
def test_a_session_that_runs_a_node_elsewhere_is_refused(placed: dict[str, int], shares: str) -> None:
    graphs = [SimpleNamespace(ep_name=name, get_nodes=lambda n=count: [0] * n) for name, count in placed.items()]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: graphs)
    with pytest.raises(ProviderError, match=f"nodes by provider: {shares}"):
        prove(session, "CUDAExecutionProvider")
