"""docs/reliability.md: every promise names the tests that hold it, and they are there."""

import re

from tests.support.params import ROOT

PAGE = (ROOT / "docs/reliability.md").read_text()


def test_every_promise_names_a_test_that_is_there() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for row in rows:
        *_, tests = row.strip("|").split("|")
        named = re.findall(r"`(tests/[\w/]+\.py)`", tests)
        assert named, row
        assert [name for name in named if not (ROOT / name).exists()] == []
