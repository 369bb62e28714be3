"""What a message says of many names."""

import pytest

from tasks.harness.errors import listed


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (1237, "0, 1, 2 and 1,234 more")],
)
def test_the_first_names_are_listed_and_the_others_counted(count: int, text: str) -> None:
    assert listed([str(number) for number in range(count)], 3) == text


def test_what_has_commas_of_its_own_is_set_apart_by_another_sign() -> None:
    assert listed(["a, a pipe", "b, a link", "c"], 2, "; ") == "a, a pipe; b, a link and 1 more"
