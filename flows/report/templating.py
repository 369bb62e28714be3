"""The templates of pages, and how they are filled in."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.report.verdicts import figure


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
    made.filters["value"] = figure
    return made
