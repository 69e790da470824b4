"""Reads a file of variables as systemd does for `EnvironmentFile=`, such as
/etc/default/wok-exporter.

The rules are those of systemd.exec(5): `NAME=value` on a line, `#` and `;` start a comment line, a
backslash at the end of a line continues it, values may be quoted, and nothing is expanded. A shell
would read the same file differently, which is a common reason for variables that "do not work".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class EnvironmentFile(NamedTuple):
    """The variables of a file, and a sentence for each line that systemd ignores or reads in a
    surprising way.
    """

    variables: dict[str, str]
    mistakes: list[str]


def parse(text: str) -> EnvironmentFile:
    """Return what systemd reads from the text of a file; later lines override earlier ones."""
    variables: dict[str, str] = {}
    mistakes: list[str] = []
    for number, line in _logical_lines(text):
        name, equals, value = line.partition("=")
        name = name.strip()
        if name.startswith("export ") and equals:
            mistakes.append(
                f"line {number}: `export` is not allowed: systemd ignores the line. Remove the word"
            )
        elif not equals or not _NAME.fullmatch(name):
            mistakes.append(f"line {number}: not NAME=value: systemd ignores the line")
        else:
            variables[name] = _value(value.strip())
            if re.search(r"\$[{A-Za-z_(]|`", variables[name]):
                mistakes.append(f"line {number}: {name} contains $ or `, which systemd does not expand")
    return EnvironmentFile(variables, mistakes)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines that are not comments, continued ones as one, with the number of the first."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, first in lines:
        line = first.strip()
        if not line or line[0] in "#;":
            continue
        while _is_continued(line):
            line = line[:-1] + next(lines, (0, ""))[1].strip()
        yield number, line


def _is_continued(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _value(text: str) -> str:
    """Return a value without its quotes and escapes."""
    found: list[str] = []
    quote = ""
    characters = iter(text)
    for c in characters:
        if quote == "'":
            quote = "" if c == "'" else quote
            found += [] if not quote else [c]
        elif c == "\\":
            following = next(characters, "")
            # between double quotes a backslash escapes only these
            keeps = quote == '"' and following not in '"\\`$'
            found.append(f"\\{following}" if keeps else following)
        elif c in "\"'" and (not quote or c == quote):
            quote = "" if quote else c
        else:
            found.append(c)
    return "".join(found)
