"""Has the run of a night pause before a step: Python imports this first where its folder is on the PYTHONPATH.

PAUSE_BEFORE   a regular expression of what it is about to do, as Python's audit events have it; where that matches, the
               run waits, for good but for signals and for RELEASED
"""

import os
import re
import sys
import time
from pathlib import Path

PAUSED, RELEASED = Path(".cache/paused"), Path(".cache/released")  # in the project, where a run begins
STEP = os.environ.get("PAUSE_BEFORE")
EVENTS = ("import", "os.link", "os.rename", "shutil.rmtree", "subprocess.Popen")


def pause(event: str, arguments: tuple[object, ...]) -> None:
    if event in EVENTS and STEP and not paused.exists():
        what = arguments[1] if event == "subprocess.Popen" else arguments  # its environment has STEP in it
        if re.search(STEP, f"{event} {what}"):
            paused.touch()
            os.write(1, f"paused before {event}\n".encode())
            while not released.exists():
                time.sleep(0.02)


if STEP and "prefect.engine" in sys.orig_argv:  # no stage, and no command of git
    paused, released = PAUSED.absolute(), RELEASED.absolute()
    sys.addaudithook(pause)
