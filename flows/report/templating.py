"""The templates of pages, and how they are filled in."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.report.verdicts import figure
from tasks.gates.verdict import Figure

MARKS = re.compile(r"[\\`*<>\[\]|~]|(?<![^\W_])_|_(?![^\W_])")  # what Markdown would take for its own


def environment(html: bool) -> Environment:
    """Return what fills in a template: a page in HTML, where what is filled in is escaped, or another text."""
    made = Environment(
        loader=PackageLoader("flows.report"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"value": figure, "md": markdown}
    return made


def markdown(something: Figure) -> str:
    """Write a value into a line or a table of Markdown, so that it is read as it is."""
    return MARKS.sub(r"\\\g<0>", figure(something)).replace("\n", " ")
