"""Tell somebody how each night ended: by mail, in a chat, at a webhook, wherever Apprise can send a message.

Reads:  Prefect's database, in PREFECT_HOME or behind PREFECT_API_URL
Writes: the same
Run:    python -m flows notify [--url URL]; without the option URL
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from flows.runtime import project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import ServerError
from flows.runtime.stopped import STOPPED_BY, Stopped, stop
from tasks.harness import section
from tasks.harness.errors import ParamsError, StageError

OFF = "off"
EXAMPLES = (
    "json://host:8080/path for a webhook of your own (jsons:// by TLS), mailto://user:password@gmail.com, "
    "slack://..., the address of a webhook as Slack, Discord or Teams shows it; "
    "https://github.com/caronc/apprise/wiki has them all"
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows notify", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--url",
        help=f"whom to tell, as Apprise has it; {OFF}: nobody; without it, say who is told (default: URL, where a list "
        "of processes does not show it)",
    )
    options = parser.parse_args(arguments)
    typed = os.environ.pop("URL", "")  # a server that is started from here is not to have it
    url = (typed if options.url is None else options.url).strip()
    for number in STOPPED_BY:
        signal.signal(number, stop)
    try:
        section.read()  # this is the project's folder
        _tell(url) if url and url != OFF else _look(remove=url == OFF)
    except (ParamsError, StageError, ServerError, OSError) as error:
        sys.exit(f"notify: {error}")
    except Stopped as stopped:
        print("notify: stopped; make notify says who is told", file=sys.stderr)
        sys.exit(128 + stopped.number)


def _tell(url: str) -> None:
    addresses, who = addressed(url)
    print(f"sending a message to {who}", flush=True)  # the import of Prefect takes seconds
    from flows.runtime import labels, notices

    states = ", ".join(notices.TOLD)
    with _server():
        try:
            body = f"From now on you are told when a night of {labels.checkout()} ends as {states}."
            notices.deliver(addresses, "A test of make notify", body)
        except StageError as error:
            raise StageError(f"{who} did not take the message, so nothing was changed: {error}") from None
        notices.set_up(addresses, who)
    print(f"{who} has it, and is told from now on when a night ends as {states}")


def _look(remove: bool) -> None:
    """Say who is told, or have nobody be told."""
    print("asking Prefect's server", flush=True)  # the import of Prefect takes seconds
    from flows.runtime import notices

    with _server():
        told = notices.told()
        if remove:
            notices.remove()
    if remove:
        print(f"nobody is told any more; it was {told}" if told else "nobody was told")
    else:
        print(f"told how nights end: {told}" if told else "nobody is told how nights end: make notify URL=...")


@contextmanager
def _server() -> Iterator[None]:
    """Use the server of the schedule that is at work, or the one that it would have: it ends with the body if it was
    started for it.

    Raises:
        ServerError: there is none, or it refuses what it is asked.
    """
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with ExitStack() as stack:
        try:
            # Held, so that no schedule begins meanwhile on a server that is about to end.
            stack.enter_context(project_lock.hold(path=project_lock.SCHEDULE))
            used = stack.enter_context(server.for_schedule())
        except ProjectLocked:
            used = server.of_schedule()
        stack.enter_context(temporary_settings({PREFECT_API_URL: used.url}))
        try:
            yield
        except PrefectHTTPStatusError as error:
            raise ServerError(f"Prefect's server at {used.url} refused: {error.response.status_code}") from None


def addressed(url: str) -> tuple[str, str]:
    """Return the addresses in `url`, separated by spaces and for plain text, and what may be shown of them.

    What may be shown is the service and, without passwords and tokens, its host: a path may be a secret, too.

    Raises:
        StageError: Apprise knows no such address. What was typed is not repeated.
    """
    from apprise import Apprise, NotifyFormat

    found = Apprise()
    if not found.add(url):
        scheme, separator, _ = url.partition("://")
        raise StageError(
            f"URL={f'{scheme}://...' if separator else '...'} is no address that Apprise knows: {EXAMPLES}"
        )
    shown = []
    for one in found:
        one.notify_format = NotifyFormat.TEXT  # as HTML, which mail is otherwise, it would have no line breaks
        place = urlsplit(one.url(privacy=True))
        shown.append(f"{one.service_name} ({place.scheme}://{place.netloc}/...)")
    return " ".join(one.url() for one in found), ", ".join(shown)


if __name__ == "__main__":
    main()
