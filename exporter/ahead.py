"""Reads and parses a history one chunk ahead, in a process of its own, so that two processors are of use.

What crosses the pipe is plain tuples in Python's `marshal` format: both ends are the same program, the format is
never stored, and nothing is faster. The child only reads files; it ends when its pipe does.
"""

from __future__ import annotations

import json
import marshal
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from exporter.archive import Archive, ArchiveError
from exporter.parse import Parser
from exporter.reading import Here, Reading
from exporter.records import Continuation, Parsed, Record, Rejected, TailEvent
from exporter.zones import Zones

_LENGTH = struct.Struct("<Q")
_TYPES: dict[int, Any] = {len(kind._fields): kind._make for kind in (Record, Continuation, Rejected)}


class Ahead:
    """Readings of `files`, made by a child process that is one chunk ahead of its reader.

    `limit` is the size of a chunk in bytes. Raises ArchiveError for what the child could not read.
    """

    def __init__(
        self,
        files: Sequence[Path],
        position: str,
        *,
        instance: str,
        zone: str,
        parser: str,
        line_bytes_max: int,
        limit: int,
    ) -> None:
        task = {
            "files": [str(path) for path in files],
            "position": position,
            "instance": instance,
            "zone": zone,
            "parser": parser,
            "line_bytes_max": line_bytes_max,
            "limit": limit,
        }
        self._child = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "exporter.ahead", json.dumps(task)],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which then closes the pipe
        )

    def read(self, limit: int) -> Reading:  # noqa: ARG002 - the chunk's size was given to the child
        """Return the next reading; waits for the child."""
        pipe = self._child.stdout
        assert pipe is not None, "opened as a pipe"
        header = pipe.read(_LENGTH.size)
        if len(header) < _LENGTH.size:
            raise ArchiveError(f"the reading process has ended with {self._child.wait()}")
        (size,) = _LENGTH.unpack(header)
        fields = marshal.loads(pipe.read(size))  # noqa: S302 - from our own child
        if isinstance(fields, str):
            raise ArchiveError(fields)
        items, events, *rest = fields
        made: list[Parsed] = [_TYPES[len(item)](item) for item in items]
        position, parser, lines, size_bytes, caught_up, behind = rest
        return Reading(
            items=made,
            position=position,
            parser=parser,
            lines=lines,
            size_bytes=size_bytes,
            events=[TailEvent(*event) for event in events],
            caught_up=caught_up,
            behind=behind,
        )

    def close(self) -> None:
        """End the child."""
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._child.terminate()
        self._child.wait()


def _send(pipe: IO[bytes], value: Any) -> None:
    data = marshal.dumps(value)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _run(task: dict[str, Any], pipe: IO[bytes]) -> None:
    try:
        archive = Archive(
            [Path(path) for path in task["files"]], task["position"], line_bytes_max=task["line_bytes_max"]
        )
        here = Here(archive, Parser(task["instance"], Zones(task["zone"]), task["parser"]))
        caught_up = False
        while not caught_up:
            reading = here.read(task["limit"])
            caught_up = reading.caught_up
            items = [tuple(item) for item in reading.items]
            events = [tuple(event) for event in reading.events]
            rest = (
                reading.position,
                reading.parser,
                reading.lines,
                reading.size_bytes,
                caught_up,
                reading.behind,
            )
            _send(pipe, (items, events, *rest))
        archive.close()
    except ArchiveError as error:
        _send(pipe, str(error))


if __name__ == "__main__":
    try:
        _run(json.loads(sys.argv[1]), sys.stdout.buffer)
    except BrokenPipeError:
        # The parent has gone, or wants no more; nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
