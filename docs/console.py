"""Runs the examples of the documentation, so that their output is real.

An example is a fenced block of Markdown with the language `console`. Its first line is `$ ` and a
shell command that starts with `wok-exporter`, the other lines are what the command prints, errors
included:

    ```console
    $ wok-exporter --version
    wok-exporter 0.1.0
    ```

`make docs` replaces the output of every example. A test checks that the committed output is
current.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = re.compile(r"^```console\n\$ (wok-exporter.*)\n(?:.*\n)*?```$", re.MULTILINE)
TIMEOUT_SECONDS = 60
ENVIRON = {
    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    "COLUMNS": "100",
    "LC_ALL": "C.UTF-8",
    "NO_COLOR": "1",
    "TZ": "America/Sao_Paulo",
    # whatever the host has installed must not show
    "WOK_EXPORTER_CONFIG": "/dev/null",
    "WOK_EXPORTER_MESSAGES": "off",
}


def refreshed(page: str) -> str:
    """Return a page with the current output of its examples."""
    commands = list(dict.fromkeys(match[1] for match in EXAMPLE.finditer(page)))
    with ThreadPoolExecutor(max_workers=2) as pool:
        outputs = dict(zip(commands, pool.map(output, commands), strict=True))
    return EXAMPLE.sub(lambda match: f"```console\n$ {match[1]}\n{outputs[match[1]]}```", page)


def output(command: str) -> str:
    """Run a shell command in the checkout and return what it prints, ending with a newline."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=ROOT,
        env=ENVIRON,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    # errors last, because their place among the other lines is a matter of time
    lines = [line.rstrip() for line in (done.stdout + done.stderr).strip("\n").splitlines()]
    return "".join(f"{line}\n" for line in lines)
