"""Errors whose message is all that a user needs: they end a stage or a flow with one sentence and no traceback."""

import reprlib
from collections.abc import Sequence

from pydantic_core import ErrorDetails

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple = 2, 4, 4
_SHORT.maxstring = _SHORT.maxother = 120  # characters


def shown(value: object) -> str:
    """Write a value that was refused into a message: its beginning, where it is long or its aliases make it so."""
    return _SHORT.repr(value)


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Write the first `most` names into a message, and how many there are more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{separator.join(names[:most])}{more}"


def refusal(detail: ErrorDetails, at: tuple[str | int, ...] = ()) -> str:
    """Say of a value that pydantic refuses what it is called, what it is and what would be right.

    Args:
        at: where what was checked stands in its file.
    """
    name = ".".join(map(str, (*at, *detail["loc"]))) or "the whole file"
    if detail["type"] == "missing":
        return f"{name}: missing"
    message = detail["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
    return f"{name} = {shown(detail['input'])}: {message[0].lower()}{message[1:]}"


def of_system(error: OSError) -> str:
    """Say what the system says of an error, and of which file."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


class StageError(Exception):
    """A stage cannot do its work; the message names the value at fault and what would be right."""


class InputsChanged(StageError):
    """What a stage depends on is no longer what it was at its start."""


class ParamsError(ValueError):
    """params.yaml cannot be used; the message lists every reason."""
