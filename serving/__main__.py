"""Serve the model in service over HTTP, by the Open Inference Protocol: docs/deployment.md.

Reads:  models/registry/champion.json and the model that it names; where there is none yet, models/model.onnx
Run:    python -m serving, or with MODEL and PORT in the environment, as make serve does
"""

import argparse
import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import uvloop

from serving import champion
from serving.champion import CHAMPION, VARIABLE, Champion, registry
from serving.files import printable
from serving.server.app import App
from serving.server.described import MODEL
from serving.server.limits import Limits
from serving.server.log import say
from serving.server.served import Refused, Served, open_champion, open_file
from serving.server.server import Server
from serving.server.service import Service, follow
from serving.session import SessionError

DEFAULT = Path("models/model.onnx")
TOKEN = "TOKEN"  # environment: what requests have to bear; on the command line anyone on the machine could read it
SWITCH_S = 0.0005  # after which a thread gives way to another: the event loop to the model, and back


def main() -> None:
    options = _parse()
    token = _token()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until it serves, Ctrl-C ends it without a word
    limits, root = Limits(), registry()
    try:
        model, found = _open(options.model, root, options.provider, limits)
        listening = _listen(options.host, options.port)
    except Refused as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        sys.exit(printable(f"serve: {error}{cause}; make rollback puts the one before it back"))
    except SessionError as error:
        sys.exit(printable(f"serve: {error}"))
    sys.setswitchinterval(SWITCH_S)
    _more_files(4 * limits.connections)
    source = f"the champion of {root}" if found else f"{options.model or DEFAULT}, which no promotion has judged"
    say(f"{MODEL} {model}, {source}")
    followed = (root, found) if options.model in (None, CHAMPION) else None
    uvloop.run(_serve(model, limits, listening, followed, options.provider, token))


async def _serve(
    model: Served,
    limits: Limits,
    listening: socket.socket,
    followed: tuple[Path, Champion | None] | None,
    provider: str,
    token: str | None,
) -> None:
    service = Service(model, limits)
    app = App(service, token)
    gc.freeze()  # what is there now stays, and need not be looked through again
    host, port = listening.getsockname()[:2]
    say(f"http://{f'[{host}]' if ':' in host else host}:{port}, until Ctrl-C")
    following = asyncio.create_task(follow(service, *followed, provider)) if followed else None
    await Server(app, service, limits).serve([listening])
    if following:
        following.cancel()
    await app.close()


def _open(model: str | None, root: Path, provider: str, limits: Limits) -> tuple[Served, Champion | None]:
    if model not in (None, CHAMPION):
        return open_file(Path(model), provider, limits.batch), None
    if found := champion.required(root) if model else champion.read(root):
        return open_champion(root, found, provider, limits.batch), found
    if not os.path.lexists(DEFAULT):  # which, unlike Path.exists, a folder that is shut does not stop
        raise SessionError(
            f"there is neither a champion in {root} nor {DEFAULT}: copy one of them here, or name a file with --model; "
            "in the project make run trains a model and make pull-champion brings the champion"
        )
    say(f"there is no champion in {root} yet; make promote makes one")
    return open_file(DEFAULT, provider, limits.batch), None


def _token() -> str | None:
    """Return what requests have to bear. One that none can bear would keep all out, an empty one would let all in."""
    token = os.environ.get(TOKEN)
    if token is not None and not (token.isprintable() and token.strip() == token != ""):
        sys.exit(
            f"serve: {TOKEN} is empty, or begins or ends with a space, or has a line break; unset: nothing is asked"
        )
    return token


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]  # attempting what is said here anyway
        sys.exit(printable(f"serve: cannot listen on {host}, port {port}: {why}; PORT= chooses another"))


def _more_files(wanted: int) -> None:
    """Let the process have as many connections as `Limits` says, though a shell may allow it fewer files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve the champion of the registry, and each one that takes its place, by the Open Inference "
        f"Protocol. The environment may hold MODEL and PORT instead of the options, {VARIABLE}: where the registry "
        f"lies, and {TOKEN}: what requests bear.",
    )
    model, port = os.environ.get("MODEL"), os.environ.get("PORT")
    parser.add_argument("--model", default=model or None, help="a model.onnx; champion: that or nothing")
    parser.add_argument(
        "--host", type=_host, default="127.0.0.1", help="default: 127.0.0.1, which this machine alone reaches"
    )
    parser.add_argument("--port", type=_port, default=port or "8080", help="default: 8080; 0: any that is free")
    parser.add_argument("--provider", default="auto", help="ONNX Runtime's execution provider (default: auto)")
    return parser.parse_args()


def _host(text: str) -> str:
    if not text:  # which the system would take for all addresses
        raise argparse.ArgumentTypeError("'' is no address: 127.0.0.1 is for this machine alone, 0.0.0.0 for any")
    return text


def _port(text: str) -> int:
    if not (text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; a number from 0 to 65535 is expected")
    return int(text)


if __name__ == "__main__":
    main()
