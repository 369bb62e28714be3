"""Fixtures: a server in a process of its own, with the model of two classes that tests/support/served.py makes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import served
from tests.support.server import Running, running

# The same examples in every run, so that a run fails or passes by what was changed; and nothing kept of them.
settings.register_profile("serving", derandomize=True, database=None, deadline=None)
settings.load_profile("serving")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`python -m serving`, stopped after the tests of a module."""
    folder: Path = tmp_path_factory.mktemp("server")
    (folder / "models").mkdir()
    (folder / "models/model.onnx").write_bytes(served.model().SerializeToString())
    with running(folder) as found:
        yield found
