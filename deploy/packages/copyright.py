"""The copyright page of a package: our license, and those of everything that
the program includes.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

_HEAD = """\
wok-exporter is licensed under the Apache License, Version 2.0; the text is below. This package also
contains the Python interpreter, libraries of the system on which it was built, and Python packages,
each under its own license. A text that several of them share is printed once.
"""


def copyright_page(bundled: Path) -> str:
    """Return the page for `bundled`, the directory of the program's libraries.

    Raises FileNotFoundError for a part without a license text.
    """
    owners: dict[str, list[str]] = {}
    for name, text in (*_distributions(bundled), *_python(), *_libraries(bundled)):
        sharing = owners.setdefault(text, [])
        if name not in sharing:
            sharing.append(name)
    chapters = (
        f"{'=' * 80}\n{', '.join(names)}\n{'=' * 80}\n\n{text.strip()}\n" for text, names in owners.items()
    )
    return "\n".join([_HEAD, *chapters])


def _python() -> Iterator[tuple[str, str]]:
    text = Path(sysconfig.get_path("stdlib"), "LICENSE.txt").read_text("utf-8")
    yield f"Python {sys.version.split()[0]}", text


def _libraries(bundled: Path) -> Iterator[tuple[str, str]]:
    """Yield the libraries from packages of the build machine (a Debian), with
    their license texts.
    """
    for library in sorted(bundled.glob("*.so*")):
        if library.name.startswith(("libpython", "exporter__mypyc")):
            continue  # the texts of these came with Python and with the wheel
        asked = subprocess.run(
            ["dpkg-query", "--search", f"*/{library.name}"], capture_output=True, text=True, check=False
        )
        owner = asked.stdout.partition(":")[0]
        page = Path("/usr/share/doc", owner, "copyright")
        if not owner or not page.is_file():
            raise FileNotFoundError(
                f"{library.name}: no Debian package with a copyright page has this library"
            )
        yield f"{library.name} ({owner})", page.read_text("utf-8")


def _distributions(bundled: Path) -> Iterator[tuple[str, str]]:
    for metadata in sorted(bundled.glob("*.dist-info")):
        distribution = Distribution.at(metadata)
        name = f"{distribution.metadata['Name']} {distribution.version}"
        texts = [
            path
            for path in sorted(metadata.rglob("*"))
            if path.is_file() and path.name.upper().startswith(("LICEN", "COPYING", "NOTICE"))
        ]
        if not texts:
            raise FileNotFoundError(f"{name}: its {metadata.name} has no license text")
        for path in texts:
            yield name, path.read_text("utf-8")
