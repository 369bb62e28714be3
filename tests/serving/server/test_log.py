"""What the server says may have no reader, and may find no room: it is no reason not to go on."""

import os
from pathlib import Path

import pytest

from serving.server.log import complain, say, write


def test_a_line_is_said_at_once_and_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("version 2 answers now")
    complain("refused: \x1b[31m\n")
    assert capsys.readouterr() == ("serve: version 2 answers now\n", "serve: refused: \\x1b[31m\\n\n")


def test_without_a_reader_nothing_is_said_and_nothing_is_left_for_the_end() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        write("heard", stream)
        assert os.read(reader, 99) == b"heard\n"
        os.close(reader)
        write("not heard", stream)
        write("nor this", stream)
    assert stream.closed, "which would raise if a line was left in it"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_on_a_full_disk_nothing_is_said() -> None:
    with Path("/dev/full").open("w") as stream:
        write("no room", stream)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # room again, or closing would fail
