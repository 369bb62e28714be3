"""What is told of a run, on a terminal and in a log."""

import io
from collections.abc import Callable

from serving.folder.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ticking(seconds: float) -> Callable[[], float]:
    times = iter([number * seconds for number in range(1000)])
    return lambda: next(times)


def test_a_log_gets_a_line_a_minute_with_rate_and_time_left() -> None:
    log = io.StringIO()
    clock = iter([0, 30, 60, 60, 60])
    progress = Progress(10_000, 2000, 1, log, lambda: next(clock))
    progress.add(500, 0)
    assert log.getvalue() == ""
    progress.add(700, 2)
    progress.end()
    assert log.getvalue() == "3,200 of 10,000 images, 3 bad, 20 images/s, 0:05:40 left\n"


def test_a_terminal_has_one_line_that_is_renewed_and_in_the_end_taken_off() -> None:
    terminal = Terminal()
    progress = Progress(100, 0, 0, terminal, ticking(1))
    progress.add(10, 0)
    progress.add(10, 0)
    assert terminal.getvalue().count("\r\x1b[K") == 2
    assert "\n" not in terminal.getvalue()
    progress.end()
    assert terminal.getvalue().endswith("left\r\x1b[K")


def test_nothing_left_to_do_is_no_division_by_zero() -> None:
    progress = Progress(5, 5, 0, Terminal(), lambda: 0.0)
    assert str(progress) == "5 images, none of them bad; 0 images/s"
    assert str(Progress(5, 5, 2, Terminal(), lambda: 0.0)).startswith(
        "5 images, 2 of them bad, as the column error says"
    )
    progress.add(0, 0)
