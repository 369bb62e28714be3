"""What a request may be, and how much of all requests together the server takes on."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """All are checked before anything is decoded; sizes in bytes, times in seconds."""

    connections: int = 1024
    pipelined: int = 64  # requests of a connection that wait for the one before them
    header: int = 32_768  # of a request: its first line and its headers
    json: int = 4 * MIB  # parsing it is the one thing that keeps the event loop busy; binary tensors are not parsed
    body: int = 64 * MIB
    upload: int = 16 * MIB  # of an image file
    held: int = 256 * MIB  # of all bodies that are being received or wait, and answers that nobody reads
    batch: int = 64  # images that are run together
    images: int = 4096  # of a request
    numbers: int = 131_072  # of an answer in JSON, for the same reason
    waiting: int = 4096  # images that wait for the model
    decoding: int = 64  # image files that wait to be decoded
    header_s: float = 10
    body_s: float = 60
    idle_s: float = 75  # that a connection is kept without a request; longer than proxies reuse one (nginx: 60)
    queue_s: float = 10
    drain_s: float = 1  # that connections without a request are kept once the server is told to stop
    stop_s: float = 30  # for requests that were accepted by then
