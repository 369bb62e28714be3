"""What is prepared, as others take it."""

import pytest

from tasks.prepared import spread


@pytest.mark.parametrize(
    ("count", "most", "chosen"),
    [(5, 3, [0, 2, 4]), (3, 5, [0, 1, 2]), (1, 5, [0]), (0, 5, []), (200, 5, [0, 49, 99, 149, 199]), (200, 1, [0])],
)
def test_what_is_chosen_is_spread(count: int, most: int, chosen: list[int]) -> None:
    assert spread(count, most).tolist() == chosen
