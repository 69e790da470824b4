"""Lines of wok-error.log as Wok writes them, for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.parse.timezone import Zones
from exporter.wok.error_log import Block, ErrorLog, Item

from .records_made import EPOCH

UTC = Zones("UTC")
UUID_EPOCH_STEPS = 0x01B21DD213814000
VMS_CLONE = ("kimchi", "model/vms.py", "_clone_task")
VMS_MIGRATE = ("kimchi", "model/vms.py", "_migrate_task")
SWAPS_CREATE = ("ginger", "model/swaps.py", "_create_task")
CHAINED = "During handling of the above exception, another exception occurred:"
CAUSED = "The above exception was the direct cause of the following exception:"
BOOT = (
    b"[01/Aug/2016:00:00:01] ENGINE Listening for SIGTERM.",
    b"[01/Aug/2016:00:00:01] ENGINE Listening for SIGHUP.",
    b"[01/Aug/2016:00:00:01] ENGINE Bus STARTING",
    b"Something else that a plug-in says",
    b"[01/Aug/2016:00:00:02] ENGINE Serving on http://127.0.0.1:8010",
    b"[01/Aug/2016:00:00:02] ENGINE Bus STARTED",
)


def task_id(at: float, clock: int = 0) -> str:
    """The uuid1 of a task that was made `at` seconds after EPOCH, by the thread of this clock sequence."""
    steps = EPOCH * 10_000_000 + round(at * 10_000_000) + UUID_EPOCH_STEPS
    return f"{steps & 0xFFFFFFFF:08x}-{steps >> 32 & 0xFFFF:04x}-1{steps >> 48:03x}-{0x8000 | clock:04x}-02fc00000001"


def header(made: str, *, blank: bool = False) -> str:
    """The first write of a block; Python 2 ends it with a blank."""
    return f"Error in async_task {made}" + (" " if blank else "")


def frames(
    function: tuple[str, str, str] | None,
    *,
    place: str = "/usr/lib/python3.8/site-packages",
    deeper: Sequence[str] = (),
    line: int = 109,
) -> list[str]:
    """The frames of a task's own traceback: Wok's, the task's function, and others below it."""
    lines = [f'  File "{place}/wok/asynctask.py", line {line}, in _run_helper', "    self.fn(cb, opaque)"]
    if function is not None:
        plugin, file, name = function
        lines += [f'  File "{place}/wok/plugins/{plugin}/{file}", line 7, in {name}', "    work(cb)"]
    return [*lines, *deeper]


def traceback(
    function: tuple[str, str, str] | None = VMS_CLONE,
    said: str = "ValueError: no room",
    *,
    causes: Sequence[str] = (),
    place: str = "/usr/lib/python3.8/site-packages",
    deeper: Sequence[str] = (),
) -> list[str]:
    """The second write of a block, with the empty line that ends it."""
    first = "Traceback (most recent call last):"
    return [*causes, first, *frames(function, place=place, deeper=deeper), *said.split("\n"), ""]


def block(
    made: str,
    function: tuple[str, str, str] | None = VMS_CLONE,
    said: str = "ValueError: no room",
    *,
    place: str = "/usr/lib/python3.8/site-packages",
) -> list[str]:
    """Both writes of a block."""
    return [header(made), *traceback(function, said, place=place)]


def parsed(lines: Iterable[str | bytes], log: ErrorLog | None = None) -> list[Item]:
    """What a reader makes of these lines."""
    reader = log or ErrorLog(UTC)
    return [
        item
        for line in lines
        for item in reader.feed(line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape"))
    ]


def blocks(lines: Iterable[str | bytes]) -> list[Block]:
    """The blocks among them."""
    return [item for item in parsed(lines) if isinstance(item, Block)]
