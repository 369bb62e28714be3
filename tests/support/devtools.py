"""Chromium as a person uses it: mouse, keys, files and windows, by the DevTools protocol over a pipe.

https://chromedevtools.github.io/devtools-protocol
"""

import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import CHROMIUM

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
PATIENCE_S = 20
# Chromium takes commands from file 3, answers in file 4, and ends when nobody holds the other ends any more.
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " "), "Escape": (27, "")}


class Browser:
    """A running Chromium."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._numbers = itertools.count(1)
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile is added to `events`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        content = memoryview(json.dumps(message).encode() + b"\0")
        while content:
            content = content[os.write(self._commands, content) :]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = self._receive(deadline)
            if found.get("id") == number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self.events.append(found)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            received = os.read(self._answers, 2**20)
            assert received, "Chromium has ended"
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    @contextmanager
    def tab(self, url: str, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator["Tab"]:
        """Open a page as in a profile of its own, with nothing kept of the ones before."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session, context)
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height)
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        tab.call("Page.navigate", url=url)
        tab.until("document.readyState === 'complete'")
        try:
            yield tab
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """One page, and what a person does to it."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self.browser, self._session, self.context = browser, session, context

    def call(self, method: str, **params: object) -> dict[str, Any]:
        return self.browser.call(method, self._session, **params)

    def resize(self, width: int, height: int) -> None:
        """Make the window so large, in pixels, without the scroll bars that a telephone does not have."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise AssertionError(f"{expression} does not become true; the page: {self.text('body')}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """Return the text of an element as it is seen."""
        found: str = self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    def events(self, method: str) -> list[dict[str, Any]]:
        """Return what has happened on this page, of one kind."""
        self.evaluate("0")  # what was on its way has come
        session, events = self._session, self.browser.events
        return [one["params"] for one in events if one.get("sessionId") == session and one["method"] == method]

    def middle(self, selector: str) -> tuple[float, float]:
        """Scroll an element into view and return where it lies."""
        x, y = self.evaluate(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); "
            "one.scrollIntoView({block: 'center', behavior: 'instant'}); const box = one.getBoundingClientRect(); "
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        return x, y

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def click(self, selector: str) -> None:
        x, y = self.middle(selector)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def press(self, key: str) -> None:
        code, text = KEYS[key]
        described = {"key": text if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **described)
        self.call("Input.dispatchKeyEvent", type="keyUp", **described)

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def drop(self, *files: Path) -> None:
        """Drag files from elsewhere and let them go over the middle of the window."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)

    def choose(self, selector: str, *files: Path) -> None:
        """Pick files in the dialog that an input element has opened."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])


@contextmanager
def chromium(profile: Path, *words: str) -> Iterator[Browser]:
    """Run Chromium; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    theirs, commands = os.pipe()
    answers, written = os.pipe()
    options = (*FLAGS, *words, f"--user-data-dir={profile}", "--remote-debugging-pipe")
    command: Sequence[str] = (sys.executable, "-c", START, str(theirs), str(written), CHROMIUM, *options, "about:blank")
    process = subprocess.Popen(
        command, pass_fds=(theirs, written), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    os.close(written)
    try:
        browser = Browser(commands, answers)
        yield browser
        browser.call("Browser.close")
        process.wait(PATIENCE_S)
    finally:
        os.close(commands)
        os.close(answers)
        process.kill()
        process.wait()
