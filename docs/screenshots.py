"""Makes the screenshots of the documentation from a real demo: `make screenshots`.

It needs Chromium. The page is taken while the demo runs, the terminal after it: the output of
`wok-exporter tasks`, as a terminal of 110 columns gets it, drawn as HTML.
"""

from __future__ import annotations

import fcntl
import html
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import suppress
from pathlib import Path

from tests.browser import Browser, chromium

IMAGES = Path(__file__).parent / "images"
PROGRAM = str(Path(sys.executable).with_name("wok-exporter"))
PAGE_SIZE = (1200, 860)
TERMINAL_COLUMNS, TERMINAL_LINES = 110, 40
TAKEN_WHEN = """
document.querySelectorAll('#failures > *').length >= 4
  && document.querySelectorAll('#running > *').length >= 2
"""
"""Tasks have failed, two were lost and others are running again: 33 seconds into the demo."""
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "35": "#d2a8ff", "36": "#76e3ea"}
STYLE = """
body { margin: 0; background: #0d1117; }
pre { margin: 0; padding: 16px 20px; width: max-content; color: #c9d1d9;
      font: 14px/1.35 "DejaVu Sans Mono", "Liberation Mono", monospace; }
"""


def main() -> None:
    """Write both images."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        directory = Path(name)
        state = directory / "state"
        port = _free_port()
        demo = subprocess.Popen(
            [PROGRAM, "demo", "--state", str(state), "--listen", f"127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL,
            env=_environ(),
        )
        try:
            _take_page(browser, f"http://127.0.0.1:{port}/?last=45s", demo)
            demo.wait(timeout=60)
        finally:
            demo.kill()
            demo.wait()
        command = ["tasks", "--state", str(state), "--limit", "9"]
        _take_terminal(browser, directory, "wok-exporter tasks --limit 9", _terminal(command))


def _environ() -> dict[str, str]:
    return {
        **os.environ,
        "WOK_EXPORTER_CONFIG": os.devnull,
        "WOK_EXPORTER_HOST_NAME": "kvm01",
        "TERM": "xterm-256color",
        "TZ": "UTC",
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _take_page(browser: Browser, url: str, demo: subprocess.Popen[bytes]) -> None:
    width, height = PAGE_SIZE
    with browser.tab("about:blank", width=width, height=height, prefers_color_scheme="light") as tab:
        tab.call("Emulation.setScrollbarsHidden", hidden=True)
        while demo.poll() is None:
            tab.go(url)
            with suppress(AssertionError):
                tab.wait_for(TAKEN_WHEN)
                break
        tab.screenshot(IMAGES / "page.png")


def _terminal(arguments: list[str]) -> str:
    """Return what a command prints to a terminal, escape sequences included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", TERMINAL_LINES, TERMINAL_COLUMNS, 0, 0))
    process = subprocess.Popen([PROGRAM, *arguments], stdout=theirs, stderr=theirs, env=_environ())
    os.close(theirs)
    data = b""
    with suppress(OSError):  # the end of a terminal is an error
        while piece := os.read(ours, 65536):
            data += piece
    os.close(ours)
    process.wait()
    return data.decode().replace("\r\n", "\n")


def _take_terminal(browser: Browser, directory: Path, command: str, text: str) -> None:
    page = directory / "terminal.html"
    body = f"$ {command}\n{_as_html(text)}"
    page.write_text(f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style><pre>{body}</pre>', "utf-8")
    with browser.tab(page.as_uri(), width=1200, height=600) as tab:
        tab.wait_for("document.querySelector('pre')")
        width, height = tab.evaluate(
            "(() => { const box = document.querySelector('pre').getBoundingClientRect();"
            " return [Math.ceil(box.width), Math.ceil(box.height)]; })()"
        )
        tab.size(int(width), int(height))
        tab.screenshot(IMAGES / "terminal.png")


def _as_html(text: str) -> str:
    """Return text with colours (SGR) as HTML; other escape sequences are left out."""
    parts = []
    is_open = False
    for piece in re.split(r"(\x1b\[[0-9;?]*[A-Za-z])", text.rstrip()):
        if not piece.startswith("\x1b"):
            parts.append(html.escape(piece))
            continue
        if piece.endswith("m"):
            parts += ["</span>"] if is_open else []
            codes = piece[2:-1].split(";")
            style = [f"color:{COLOURS[code]}" for code in codes if code in COLOURS]
            style += ["font-weight:bold"] if "1" in codes else []
            is_open = bool(style)
            parts += [f'<span style="{";".join(style)}">'] if is_open else []
    return "".join(parts) + ("</span>" if is_open else "")


if __name__ == "__main__":
    main()
