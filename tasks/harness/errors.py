"""Errors whose message is all that a user needs: they end a stage or a flow with one sentence and no traceback."""


class StageError(Exception):
    """A stage cannot do its work; the message names the value at fault and what would be right."""


class InputsChanged(StageError):
    """What a stage depends on is no longer what it was at its start."""


class ParamsError(ValueError):
    """params.yaml cannot be used; the message lists every reason."""
