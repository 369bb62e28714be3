"""Names that anyone may have chosen."""

from serving.files import printable


def test_what_a_terminal_would_obey_is_escaped_and_the_rest_left_as_it_is() -> None:
    assert printable("\x1b[2J a\nb\r\x9b\u202e\udcff.png") == r"\x1b[2J a\nb\r\x9b\u202e\udcff.png"
    assert printable("Käse 猫 👢 'a' \\") == "Käse 猫 👢 'a' \\"
