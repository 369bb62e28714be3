"""labels.txt has a line for each class."""

from serving.labels import labels


def test_labels_are_a_class_a_line_whatever_they_are_called() -> None:
    names = ["cat", "", "a b\tc", "line\nbreak\r\n\u2028\x85", "naïve 猫\u3000", "not \udcff UTF-8"]
    lines = labels(names).decode().splitlines()
    assert lines == ["cat", "", "a b\tc", r"line\nbreak\r\n\u2028\x85", "naïve 猫\u3000", r"not \udcff UTF-8"]
