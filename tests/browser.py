"""A real Chromium, without a window, driven over two pipes by the protocol that its own developer tools speak.

    with chromium() as browser, browser.tab(url) as tab:
        tab.wait_for("document.title === 'Wok tasks'")
        tab.click("#theme")
        assert tab.complaints == []

The pipes need neither a port nor a package. Source: the Chrome DevTools Protocol, `--remote-debugging-pipe`:
JSON messages with a NUL behind each, into descriptor 3, out of descriptor 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

DEADLINE_SECONDS = 30.0
"""For anything that must happen: many times what it takes, so that a busy machine fails no test."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--lang=en",
    "--remote-debugging-pipe",
)
KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
"""The keys that tests press, with their codes of Windows, by which the protocol knows them."""
COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
"""What a healthy page never causes; violations of the Content-Security-Policy are log entries."""


class Browser:
    """A running browser; `tab` opens a page in a profile of its own."""

    def __init__(self, path: str, profile: Path) -> None:
        options = [*OPTIONS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        # Out of the way of 3 and 4, which must not be overwritten before they are copied.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs_in, theirs_out)]
        silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        self._process = os.posix_spawn(
            path,
            [path, *options, "about:blank"],
            os.environ,
            file_actions=[
                *silent,
                (os.POSIX_SPAWN_DUP2, high[0], 3),
                (os.POSIX_SPAWN_DUP2, high[1], 4),
            ],
            setpgroup=0,
        )
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)
        self._read = b""
        self._calls = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **params: Any) -> Any:
        """Ask and wait for the answer; what happens meanwhile is kept in `events`."""
        self._calls += 1
        number = self._send(method, session, params)
        while True:
            message = self._next()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)
            if message.get("method") == "Page.javascriptDialogOpening":
                # A dialog stops its page until somebody answers.
                self._calls += 1
                self._send("Page.handleJavaScriptDialog", message["sessionId"], {"accept": False})

    def _send(self, method: str, session: str, params: dict[str, Any]) -> int:
        message = {"id": self._calls, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        return self._calls

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], DEADLINE_SECONDS)
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser is gone"
            self._read += data
        message, self._read = self._read.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    @contextmanager
    def tab(self, url: str, *, width: int = 1280, height: int = 900, **media: str) -> Iterator[Tab]:
        """Open a page in a new profile; `media` are features, such as `prefers_color_scheme="dark"`."""
        profile = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=profile)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        tab.size(width, height)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        tab.call("Emulation.setEmulatedMedia", features=features)
        tab.go(url)
        try:
            yield tab
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=profile)

    def close(self) -> None:
        """End it, and all that it has started."""
        with suppress(OSError, AssertionError):
            self.call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        end = time.monotonic() + DEADLINE_SECONDS
        while os.waitpid(self._process, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.killpg(self._process, signal.SIGKILL)
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)


CLICK_LOOKS_MAX = 100


class Tab:
    """One page, as a person at a keyboard has it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **params: Any) -> Any:
        """Ask something of this page's own."""
        return self._browser.call(method, self._session, **params)

    @property
    def complaints(self) -> list[str]:
        """Uncaught errors, what failed to load or was refused by the policy, dialogs: all since it was opened."""
        self.evaluate("1")
        return [
            json.dumps(event["params"])[:500]
            for event in self._browser.events
            if event.get("sessionId") == self._session
            and event.get("method") in COMPLAINTS
            and event["params"].get("entry", {}).get("level", "error") == "error"
        ]

    def go(self, url: str) -> None:
        """Open an address, also one that stands in this page already."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true; while a page loads it may well have no value."""
        end = time.monotonic() + DEADLINE_SECONDS
        while not self.evaluate(
            f"(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"
        ):
            assert time.monotonic() < end, f"it has not happened: {expression}\n{self.text('body')}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """Return the text of an element as it is shown, empty when it is hidden."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements of a kind."""
        found = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((element) => element.innerText)"
        )
        return [str(text) for text in found]

    def click(self, selector: str) -> None:
        """Press the mouse where an element is, once it has come to rest: an answer may still move the page."""
        place: list[float] | None = None
        for _ in range(CLICK_LOOKS_MAX):
            before, place = place, self._place_of(selector)
            if place is not None and place == before:
                break
            time.sleep(0.05)
        assert place is not None, f"{selector} is covered, or not there"
        x, y = place
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _place_of(self, selector: str) -> list[float] | None:
        """Return the middle of an element, None while it is not the one that a click there would reach."""
        found: list[float] | None = self.evaluate(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            " if (!element) return null;"
            " element.scrollIntoView({block: 'center'}); const box = element.getBoundingClientRect();"
            " const x = box.left + box.width / 2, y = box.top + box.height / 2;"
            " const top = document.elementFromPoint(x, y);"
            " const reached = top && (element.contains(top) || top.contains(element));"
            " return reached ? [x, y] : null; })()"
        )
        return found

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key."""
        code = KEYS.get(key) or ord(key.upper())
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        modifiers = 8 if shift else 0
        params = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **params)
        self.call("Input.dispatchKeyEvent", type="keyUp", **params)

    def write(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.call("Input.insertText", text=text)

    def size(self, width: int, height: int) -> None:
        """Give the window a size; below 500 pixels it is a phone's."""
        mobile = width < 500
        ratio = 2 if mobile else 1
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=ratio,
            mobile=mobile,
        )

    def screenshot(self, path: Path) -> bytes:
        """Write what is to be seen as a PNG, and return it."""
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        path.write_bytes(data)
        return data


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the machine's own Chromium, or skip the test and say how to get it."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no Chromium: install it (Debian, Ubuntu: apt install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(path, Path(profile))
        try:
            yield browser
        finally:
            browser.close()
