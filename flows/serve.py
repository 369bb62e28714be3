"""What a schedule runs beside its server: a run of `retraining` whenever one is due, until SIGINT arrives.

Run:    python -m flows.serve CRON SECONDS   (one of them; the other is "" or 0)
"""

import os
import signal
import sys
import threading
import time


def main(cron: str, interval_s: int) -> None:
    # Until Prefect is imported, which takes seconds, SIGINT ends this process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from flows.retraining import retraining
    from flows.runtime import labels, log, server

    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    schedule = {"cron": cron} if cron else {"interval": interval_s}
    log.quieten()
    try:
        retraining.serve(name=labels.checkout(), tags=[labels.checkout()], print_starting_message=False, **schedule)
    except Exception:
        if server.Server(os.environ["PREFECT_API_URL"]).answers():
            raise
        sys.exit(1)  # flows.runtime.schedule, which has started this, says that the server has gone


def _end_with(parent: int) -> None:
    """Start no more runs once `parent`, which would end this process, was killed itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
