"""A promotion and a rollback that are killed before any of their steps: what is in service is whole, and they go on."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows import promote
from flows.promotion import history, judge, shared, store
from flows.promotion.candidate import of_models
from tasks.params import whole
from tests.flows.promotion.conftest import Variant

# From Python 3.12 on, because there are threads of others here, which the child does not need.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
STEPS = ("open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename")
MOST = 200


def killed(root: Path, step: int, action: Callable[[], object]) -> bool:
    """Do it in a process that dies before its step of this number in the registry; return whether it came to that."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        return code == 9
    left = step

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in STEPS and any(str(root) in str(argument) for argument in arguments):
            left -= 1
            if left == 0:
                os._exit(9)

    sys.addaudithook(count)
    code = 1
    try:
        action()
        code = 0
    finally:
        os._exit(code)


def each_step(root: Path, spare: Path, action: Callable[[], object]) -> Iterator[int]:
    """Kill it before each of its steps, the registry being the same before each time."""
    shutil.copytree(root, spare)
    for step in range(1, MOST):
        shutil.rmtree(root)
        shutil.copytree(spare, root)
        if not killed(root, step, action):
            assert step > 10, "these are the steps"
            return
        yield step
    pytest.fail("it does not come to its end")


def in_service(root: Path) -> str:
    """Return the model in service, all of whose files are as they were put there, as is the pointer."""
    entries = history.read(root)
    pointer = json.loads((root / "champion.json").read_text())
    assert (pointer["number"], pointer["sha256"]) == (len(entries), entries[-1].model)
    for entry in entries:
        store.check(root, entry)
    return entries[-1].model


def test_a_promotion(ready: Path, variant: Variant, tmp_path: Path) -> None:
    promote.main([])
    root, params = ready.absolute(), whole.load()
    before = in_service(root)
    after = variant("another")
    candidate, entries = of_models(), history.read(root)
    judged = judge.judge(root, candidate, entries, params, "ana")

    def action() -> None:
        shared.append(root, promote.entered(root, candidate, judged, entries, params, "a reason"))

    found = set()
    for _ in each_step(root, tmp_path / "spare", action):
        found.add(in_service(root))
        if in_service(root) == before:
            action()
        assert in_service(root) == after
    assert found == {before, after}


def test_a_rollback(ready: Path, tmp_path: Path) -> None:
    promote.main([])
    root = ready.absolute()
    (first,) = history.read(root)
    second = replace(first, number=2, replaces=first.model, action="rolled back", reason="a reason")

    found = set()
    for _ in each_step(root, tmp_path / "spare", lambda: history.append(root, second)):
        in_service(root)
        found.add(len(history.read(root)))
        if len(history.read(root)) == 1:
            history.append(root, second)
        assert history.read(root) == [first, second]
    assert found == {1, 2}
