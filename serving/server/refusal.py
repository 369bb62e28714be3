"""A request that is answered with an error: what is wrong with it, and nothing about the machine that says so."""

import json

Header = tuple[bytes, bytes]

JSON = (b"content-type", b"application/json")


class Refusal(Exception):
    """Answered as `{"error": "..."}` with a status, by the codes of Triton where it has one."""

    def __init__(self, status: int, message: str, *headers: Header) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers

    @property
    def body(self) -> bytes:
        return json.dumps({"error": str(self)}).encode()


def busy(message: str) -> Refusal:
    return Refusal(503, f"{message}; try again in a second", (b"retry-after", b"1"))


FAILED = Refusal(500, "the server failed on this request")
