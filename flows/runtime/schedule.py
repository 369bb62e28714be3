"""A schedule as a command: its lock, its server, the deployments, the worker that starts their runs, and their end.

Reads:  params.yaml, prefect.yaml
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from zoneinfo import available_timezones

import psutil

from flows.runtime import checkout, clone, night, project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import ServerError
from flows.runtime.stopped import STOPPED_BY, Stopped, stop
from flows.runtime.worker import PID
from tasks.__main__ import STAGES
from tasks.harness.errors import ParamsError, StageError

NO_CRON = 'is no cron expression; five fields are, for example "0 3 * * *"'
WORKER = Path(".cache/schedule-worker.json")  # which process it is, for the schedule after one that was killed
STAGE_ENDS_WITHIN_S = 15
ENDS_WITHIN_S = 30  # a run that is stopped has its stage to end, and the server to tell
WORKER_ENDS_WITHIN_S = 10


def main(arguments: Sequence[str] | None = None) -> None:
    what = "Nights on a schedule: train, judge, and put into service."
    parser = argparse.ArgumentParser(prog="python -m flows retraining", description=what)
    parser.add_argument("--cron", help='"0 3 * * *": every night at three (default: CRON, as make sets it)')
    parser.add_argument(
        "--timezone", metavar="ZONE", help="whose clock that is, for example Europe/Berlin (default: TZ, else UTC)"
    )
    options = parser.parse_args(arguments)
    cron, by_cron = _given(options.cron, "--cron", "CRON")
    zone, by_zone = _given(options.timezone, "--timezone", "TZ")
    if cron is None:
        parser.error('when? make schedule CRON="0 3 * * *"')
    if chosen := next((name for name in ("DATASET", "RECIPE") if os.environ.get(name)), None):
        named = f"{chosen}={os.environ[chosen]}"
        sys.exit(f"schedule: {named}: a schedule trains by params.yaml; make run {chosen}=... writes it")
    try:
        checkout.check()
        zone = "UTC" if zone is None else zone
        if zone not in available_timezones():
            raise ParamsError(f"{by_zone}={zone!r} is no time zone; Europe/Berlin is one, and UTC")
        if len(cron.split()) != 5:  # Prefect takes a sixth, which is seconds
            raise ParamsError(f"{by_cron}={cron!r} {NO_CRON}")
        print(f"asking Prefect when {cron!r} comes due", flush=True)  # its import takes seconds
        if refusal := _refusal(cron, zone):
            raise ParamsError(f"{by_cron}={cron!r} {refusal}")
        clone.revision(night.WHAT)
        dataset = night.committed().download.dataset
        not_committed = night.edits()
    except (ParamsError, StageError) as error:
        sys.exit(f"schedule: {error}")
    due = f"when {cron!r} comes due, {zone}"
    print(f"retraining on {dataset}, {due}: {', '.join(STAGES)}, and into service if it is better", flush=True)
    if not_committed:
        print(not_committed, flush=True)
    run(cron, zone)


def _given(option: str | None, flag: str, variable: str) -> tuple[str | None, str]:
    """Return what the option says, or else the environment, and which of the two it was."""
    return (os.environ.get(variable) or None, variable) if option is None else (option, flag)


def _refusal(cron: str, zone: str) -> str | None:
    """Say what is wrong with a cron expression of five fields, if anything is."""
    from prefect.server.schemas.schedules import CronSchedule  # see flows.train

    try:
        schedule = CronSchedule(cron=cron, timezone=zone)
    except ValueError:
        return NO_CRON
    try:
        asyncio.run(schedule.get_dates(1))  # as the server will ask for them, and find none, without a word
    except ValueError as error:
        if type(error).__name__ != "CroniterBadDateError":  # of the croniter inside Prefect, which does not export it
            raise
        return "never comes due: no such date exists"
    return None


def run(cron: str, zone: str) -> None:
    """Run a worker, which starts the runs, beside a server until a signal arrives.

    It exits as commands do: with 1 and the reason if it cannot go on, with 128 and more after a signal.
    """
    for number in STOPPED_BY:
        signal.signal(number, stop)
    try:
        with project_lock.hold(path=project_lock.SCHEDULE):
            server.end(WORKER)  # of a schedule that was killed
            with server.for_schedule() as used, _working(used.url, cron, zone) as (process, follow):
                where = used.url.removesuffix("/api")
                print(f"Retraining is scheduled; its runs are at {where}. Ctrl-C ends it.", flush=True)

                def over() -> bool:
                    follow()
                    return process.poll() is not None

                gone = used.wait_until_gone(over) or not used.answers()
                if gone:
                    server.kill(server.SCHEDULE)  # first, so that what the runs ask of one that hangs fails at once
                    _kill(process)
                    print(flush=True)  # who was killed may have been in the middle of a line; likewise below
                    raise ServerError(f"Prefect's server at {used.url} has gone; its runs are ended, too")
        print(flush=True)
        sys.exit(f"schedule: Prefect's worker ended with exit code {process.returncode}; the lines above say why")
    except ServerError as error:
        sys.exit(f"schedule: {error}")
    except ProjectLocked as locked:
        sys.exit(f"schedule: there is one already in this project: {locked.holder}")
    except Stopped as stopped:
        print("schedule: ended; its runs, too", file=sys.stderr)
        sys.exit(128 + stopped.number)


@contextmanager
def _working(url: str, cron: str, zone: str) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[], None]]]:
    """Deploy, and run a worker in a process of its own, which ends, with the run that it has started, with the body.

    Yields the process, and what has the form show what is committed by then.
    """
    from flows.runtime import deployments  # see flows.train

    deployments.put(url, cron, zone)
    form = deployments.Form(url)
    form.follow()
    process = subprocess.Popen(deployments.worker(), env={**os.environ, "PREFECT_API_URL": url}, process_group=0)
    try:
        server.note(process, WORKER)
        yield process, form.follow
        _let_end(process, _at_work, ENDS_WITHIN_S)  # unless the worker, as it ended, has killed its run
        deployments.settle_at(url, by_hand=False)
    except Stopped:
        if deployments.cancel(url, ENDS_WITHIN_S):
            _end(process)
            deployments.settle_at(url, by_hand=True)
        else:
            _kill(process)
        raise
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the worker, its run first: SIGTERM lets that end its stage and tell the server, the worker would kill it."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    told: set[psutil.Process] = set()
    while process.poll() is None and (runs := _runs(process)) and time.monotonic() < deadline:
        for started in set(runs) - told:
            told.add(started)
            started.terminate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(max(deadline - time.monotonic(), WORKER_ENDS_WITHIN_S))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _runs(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [run for run in psutil.Process(process.pid).children() if _at_work(run)]
    return []


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End `process` and its runs where there is no server: it could not be told, and nobody is to wait for that.

    A run has its stage to end, by SIGTERM, and nothing else: left alone it would go on trying to tell the server.
    """
    runs = _runs(process)
    process.kill()
    for run in runs:
        with suppress(psutil.NoSuchProcess):
            run.terminate()
    _let_end(process, _has_started_another, STAGE_ENDS_WITHIN_S)


def _let_end(
    process: "subprocess.Popen[bytes]", is_waited_for: Callable[[psutil.Process], bool], within_s: float
) -> None:
    """Wait for what a worker that has ended had started, and kill what is left of it then, until that is gone."""
    deadline = time.monotonic() + within_s
    while any(map(is_waited_for, _started_by(process))) and time.monotonic() < deadline:
        time.sleep(0.1)
    for started in (left := _started_by(process)):
        with suppress(psutil.NoSuchProcess):
            started.kill()
    deadline = time.monotonic() + ENDS_WITHIN_S
    while any(map(_at_work, left)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _started_by(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """Find the run of a worker, its stage and so on: their environment names the worker, whoever their parent is."""
    found = psutil.process_iter(["environ"])
    return [one for one in found if (one.info["environ"] or {}).get(PID) == str(process.pid) and _at_work(one)]


def _has_started_another(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any(map(_at_work, process.children()))
    return False


def _at_work(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
