"""A schedule as a command: its lock, its server, the process that starts its runs, and their end.

Reads:  params.yaml
Writes: what flows/retraining.py writes, and .cache/logs/server.log
Run:    python -m flows retraining --cron "0 3 * * *"
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from flows.runtime import checkout, clone, night, project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import ServerError
from flows.runtime.stopped import STOPPED_BY, Stopped, stop
from tasks.__main__ import STAGES
from tasks.harness.errors import ParamsError, StageError

NO_CRON = 'is no cron expression; five fields are, for example "0 3 * * *"'
STAGE_ENDS_WITHIN_S = 15
ENDS_WITHIN_S = 30  # a run that is stopped has its stage to end, and the server to tell


def main(arguments: Sequence[str] | None = None) -> None:
    what = "Nights on a schedule: train, judge, and put into service."
    parser = argparse.ArgumentParser(prog="python -m flows retraining", description=what)
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--cron", help='for example "0 3 * * *": every night at three, UTC (default: CRON, as make sets it)'
    )
    when.add_argument("--interval", type=_seconds, metavar="SECONDS")
    options = parser.parse_args(arguments)
    cron = options.cron if options.interval or options.cron is not None else os.environ.get("CRON") or None
    if cron is None and not options.interval:
        parser.error('when? make schedule CRON="0 3 * * *"')
    if chosen := next((name for name in ("DATASET", "RECIPE") if os.environ.get(name)), None):
        named = f"{chosen}={os.environ[chosen]}"
        sys.exit(f"schedule: {named}: a schedule trains by params.yaml; make run {chosen}=... writes it")
    due = f"every {options.interval} s" if cron is None else f"when {cron!r} comes due, UTC"
    given = f"{'CRON' if options.cron is None else '--cron'}={cron!r}"
    try:
        checkout.check()
        if cron is not None and len(cron.split()) != 5:  # Prefect takes a sixth, which is seconds
            raise ParamsError(f"{given} {NO_CRON}")
        if cron is not None:
            print(f"asking Prefect when {cron!r} comes due", flush=True)  # its import takes seconds
            if refusal := _refusal(cron):
                raise ParamsError(f"{given} {refusal}")
        clone.revision(night.WHAT)
        dataset = night.committed().download.dataset
        not_committed = night.edits()
    except (ParamsError, StageError) as error:
        sys.exit(f"schedule: {error}")
    print(f"retraining on {dataset}, {due}: {', '.join(STAGES)}, and into service if it is better", flush=True)
    if not_committed:
        print(not_committed, flush=True)
    run([sys.executable, "-m", "flows.serve", cron or "", str(options.interval or 0)])


def _refusal(cron: str) -> str | None:
    """Say what is wrong with a cron expression of five fields, if anything is."""
    from prefect.server.schemas.schedules import CronSchedule  # see flows.train

    try:
        schedule = CronSchedule(cron=cron)
    except ValueError:
        return NO_CRON
    try:
        asyncio.run(schedule.get_dates(1))  # as the server will ask for them, and find none, without a word
    except ValueError as error:
        if type(error).__name__ != "CroniterBadDateError":  # of the croniter inside Prefect, which does not export it
            raise
        return "never comes due: no such date exists"
    return None


def _seconds(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return int(text)


def run(serving: Sequence[str]) -> None:
    """Run the command `serving`, which starts the runs, beside a server until a signal arrives.

    It exits as commands do: with 1 and the reason if it cannot go on, with 128 and more after a signal.
    """
    for number in STOPPED_BY:
        signal.signal(number, stop)
    try:
        with (
            project_lock.hold(path=project_lock.SCHEDULE),
            server.for_schedule() as used,
            _serving(serving, used.url) as process,
        ):
            where = used.url.removesuffix("/api")
            print(f"Retraining is scheduled; its runs are at {where}. Ctrl-C ends it.", flush=True)
            gone = used.wait_until_gone(lambda: process.poll() is not None) or not used.answers()
            if gone:
                server.kill(server.SCHEDULE)  # first, so that what the runs ask of one that hangs fails at once
                _kill(process)
                raise ServerError(f"Prefect's server at {used.url} has gone; its runs are ended, too")
        sys.exit(f"schedule: Prefect stopped serving the flow, exit code {process.returncode}; the lines above say why")
    except ServerError as error:
        sys.exit(f"schedule: {error}")
    except ProjectLocked as locked:
        sys.exit(f"schedule: there is one already in this project: {locked.holder}")
    except Stopped as stopped:
        print("schedule: ended; its runs, too", file=sys.stderr)
        sys.exit(128 + stopped.number)


@contextmanager
def _serving(command: Sequence[str], url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the flow in a process of its own, which ends, with the runs it started, before the server does."""
    process = subprocess.Popen(command, env={**os.environ, "PREFECT_API_URL": url}, process_group=0)
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End `process` and its runs: at SIGINT it starts no more and waits for those at work, which SIGTERM ends."""
    process.send_signal(signal.SIGINT)
    told: set[psutil.Process] = set()
    deadline = time.monotonic() + ENDS_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            for started in set(psutil.Process(process.pid).children()) - told:
                told.add(started)
                started.terminate()
        time.sleep(0.1)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End `process` and its runs where there is no server: it could not be told, and nobody is to wait for that.

    A run has its stage to end, by SIGTERM, and nothing else.
    """
    with suppress(psutil.NoSuchProcess):
        runs = psutil.Process(process.pid).children()
        process.kill()
        for started in runs:
            started.terminate()
        deadline = time.monotonic() + STAGE_ENDS_WITHIN_S
        while any(map(_at_work, runs)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for started in filter(_at_work, runs):
            started.kill()


def _at_work(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
