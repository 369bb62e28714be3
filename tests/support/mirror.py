"""A mirror on loopback that can misbehave: the first part of the path says how."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.loopback import answering


class Mirror(ThreadingHTTPServer):
    """Serves `files`, for GET alone, under /<behaviour>/...: ok, hang, cut, flaky, or an HTTP status to answer with."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.requests = Counter[str]()
        self.closing = threading.Event()

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        _, behaviour, *_, name = self.path.split("/")
        self.server.requests[behaviour] += 1
        data = self.server.files.get(name)
        if behaviour == "hang":
            self.server.closing.wait(30)
        elif behaviour.isdigit():
            self.send_error(int(behaviour))
        elif data is None:
            self.send_error(404)
        elif behaviour == "flaky" and self.server.requests[behaviour] == 1:
            self.send_error(503)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if behaviour == "cut" else data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Mirror]:
    with answering(Mirror(files)) as mirror:
        try:
            yield mirror
        finally:
            mirror.closing.set()
