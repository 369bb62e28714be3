"""Has the run of a night pause before a step: Python imports this first where its folder is on the PYTHONPATH.

PAUSE_BEFORE, in the project, where a run begins, holds a regular expression of what it is about to do, as the audit
events of Python have it; where that matches, the run waits, for good but for signals and for RELEASED. PAUSED has its
pid then.
"""

import os
import re
import sys
import time
from pathlib import Path

PAUSE_BEFORE, PAUSED, RELEASED = Path(".cache/pause-before"), Path(".cache/paused"), Path(".cache/released")
EVENTS = ("import", "os.link", "os.rename", "shutil.rmtree", "subprocess.Popen")


def pause(event: str, arguments: tuple[object, ...]) -> None:
    if event in EVENTS and not paused.exists():
        what = arguments[1] if event == "subprocess.Popen" else arguments  # its environment may have the step in it
        if re.search(step, f"{event} {what}"):
            paused.write_text(str(os.getpid()))
            os.write(1, f"paused before {event}\n".encode())
            while not released.exists():
                time.sleep(0.02)


if "prefect.engine" in sys.orig_argv and PAUSE_BEFORE.exists():  # no stage, and no command of git
    step, paused, released = PAUSE_BEFORE.read_text(), PAUSED.absolute(), RELEASED.absolute()
    sys.addaudithook(pause)
