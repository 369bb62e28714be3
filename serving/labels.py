"""labels.txt, by which runtimes that read no metadata name the classes."""

import re
from collections.abc import Iterable

LINE_BREAKS = re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")  # those of str.splitlines


def labels(class_names: Iterable[str]) -> bytes:
    """Return labels.txt: a class a line in the order of the outputs, its own line breaks escaped."""
    lines = (LINE_BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), name) for name in class_names)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
