"""Cells of a CSV file that a spreadsheet opens without taking a text for a formula.

One that begins like a formula is written with an apostrophe before it, see
https://owasp.org/www-community/attacks/CSV_Injection; so is one that begins with an apostrophe, so that a reader can
give back what was written. A number, as a label of -1, is no formula.
"""

import re

# The last four are the wide forms of the first: Excel takes them for the same.
FORMULA = re.compile(r"[=+\-@\t\r\n'\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def protected(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text
