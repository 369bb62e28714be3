"""The page at `/`: one file, held in memory, that may load and run nothing but what is in it."""

import base64
import re
from hashlib import sha256
from pathlib import Path

FILE = Path(__file__).with_name("page.html")


def page() -> tuple[bytes, dict[str, str]]:
    """Return the page, and the headers that it is sent with."""
    content = FILE.read_bytes()
    return content, {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": _policy(content),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def _policy(content: bytes) -> str:
    """Allow the script and the style of the page, by their digests, and requests to this server: no other ones."""
    rules = {
        "default-src": "'none'",
        "script-src": _digest(content, b"script"),
        "style-src": _digest(content, b"style"),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digest(content: bytes, element: bytes) -> str:
    (inside,) = re.findall(rb"<%b>(.*?)</%b>" % (element, element), content, re.DOTALL)
    return f"'sha256-{base64.b64encode(sha256(inside).digest()).decode()}'"
