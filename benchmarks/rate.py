"""How often something can be called."""

import time
from collections.abc import Callable


def rate(call: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the calls per second.

    Args:
        seconds: that it is called for, at least.
        clock: what they are of: `time.process_time` for those of the processor.
    """
    calls, started = 0, clock()
    while (passed := clock() - started) < seconds:
        call()
        calls += 1
    return calls / passed
