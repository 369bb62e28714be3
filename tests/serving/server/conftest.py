"""Fixtures: a server in a process of its own, with the model of two classes that tests/support/served.py makes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import served
from tests.support.server import Running, running
from tests.support.wire import INFER, ask, at_rest, failures, get, infer, request

GROWN = 48 * 2**20  # bytes of memory, at most, that an attack may leave behind: more than the allocator keeps for later

# The same examples in every run, so that a run fails or passes by what was changed; and nothing kept of them.
settings.register_profile("serving", derandomize=True, database=None, deadline=None)
settings.load_profile("serving")


def with_model(folder: Path) -> Path:
    """Put the model into a folder."""
    (folder / "models").mkdir()
    (folder / "models/model.onnx").write_bytes(served.model().SerializeToString())
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`python -m serving`, stopped after the tests of a module."""
    with running(with_model(tmp_path_factory.mktemp("server"))) as found:
        yield found


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Running]:
    """The same with what the module says in LIMITS."""
    with running(with_model(tmp_path_factory.mktemp("server")), limits=request.module.LIMITS) as found:
        yield found


@pytest.fixture
def unharmed(hurried: Running) -> Iterator[str]:
    """The address of a server that is as it was after each test: it answers, and holds nothing of anyone."""
    before = at_rest(hurried.url)
    yield hurried.url
    after = at_rest(hurried.url)
    assert ask(hurried.url, get("/v2/health/ready")).status == 200
    assert ask(hurried.url, request(INFER, infer())).status == 200
    assert failures(after) == failures(before)
    assert "Traceback" not in hurried.log.read_text()
    grown = after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]
    assert grown < GROWN, f"{grown / 2**20:.0f} MiB more"
