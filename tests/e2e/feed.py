"""A log of Wok that grows while it is read: real logs moved to the present where they lie beside the checkout, else simulated ones.

Two forms of Wok follow one another in it, as after an upgrade; then lines that no Wok writes, and one that somebody
forged. Whoever reads along finds every kind of thing that there is to count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from exporter.simulate.busy import busy
from exporter.simulate.records import ADA, FAILED, FINISHED, STARTED, Failure, record, task_record
from exporter.simulate.story import story

CORPUS = Path(__file__).parents[3] / "shared/corpus"
ZONE_OF_THE_CORPUS = timedelta(hours=-3)
GARBAGE = 400
"""Enough to be more than a twentieth of all lines of a minute."""

_TIME_FIRST = re.compile(
    rb'(\\*"time\\*": \\*")(?P<time>[\d:]{8})(\\*", \\*"date\\*": \\*")(?P<date>\d{4}-\d\d-\d\d)'
)
_DATE_FIRST = re.compile(rb'("date": ")(?P<date>\d{4}-\d\d-\d\d)(", "time": ")(?P<time>[\d:]{8})')
_ZONE = re.compile(rb'(\\*"zone\\*": \\*")[^"\\]+')
_EPOCH = re.compile(rb"(?<=-clone-)\d{16}")


def lines(now: datetime) -> list[bytes]:
    """Return some thousand lines of the hour that ends half a minute after `now`, in the order of a log."""
    if CORPUS.is_dir():
        old = _moved(CORPUS / "rfc-default/wok-req.log", now - timedelta(minutes=5))
        new = _moved(CORPUS / "wok-3.0.0-calm/user-requests.data", now + timedelta(seconds=30))
        return [*old, *new, *_odd(now)]
    # Ids of tasks that begin again at 1 are a restart of Wok: what still ran is lost.
    begin = now - timedelta(minutes=50)
    old = [
        *(line.data for line in busy("rfc", start=begin, requests=1200, per_second=0.5, seed=1)),
        *(
            line.data
            for minutes in (10, 8)
            for line in story("rfc", start=now - timedelta(minutes=minutes))
            if line.log == "requests"
        ),
    ]
    new = [
        line.data
        for line in busy("json", start=now - timedelta(minutes=4), requests=480, per_second=2.0, seed=2)
        if line.at < 270
    ]
    return [*old, *new, *_odd(now)]


def _odd(now: datetime) -> Iterator[bytes]:
    """What every log has, now and then: a task that ends twice, one kind that always fails, garbage, a forgery, and work that goes on."""
    stamp = {"date": f"{now:%Y-%m-%d}", "time": f"{now:%H:%M:%S}", "zone": "UTC", "id": ""}
    guest = {"ident": "web-odd", "remote_host": ""}
    uri = f"/plugins/kimchi/vms/web-odd-clone-{int(now.timestamp() * 1e6)}/clone"
    error = Failure(
        "KCHVM0035E", {"name": "web-odd", "err": "no space"}, "web-odd could not be cloned: no space"
    )
    # It began longer ago than any clone takes, and the log came late; it is younger than the exporter's expiry.
    early = stamp | {
        "time": f"{now - timedelta(minutes=12):%H:%M:%S}",
        "date": f"{now - timedelta(minutes=12):%Y-%m-%d}",
    }
    forever = (
        f"/plugins/kimchi/vms/web-slow-clone-{int((now - timedelta(minutes=12)).timestamp() * 1e6)}/clone"
    )
    yield task_record("rfc", early, "kimchi", STARTED, forever, 9000)
    yield record("rfc", stamp, "kimchi", "POST", 202, ADA, "KCHVM0009L", guest, "A clone of web-odd")
    yield task_record("rfc", stamp, "kimchi", FAILED, uri, 9001, error)
    # A minute of the log later it is reported once more.
    late = stamp | {"time": f"{now + timedelta(seconds=35):%H:%M:%S}"}
    yield record("rfc", late, "wok", "POST", 200, ADA, "WOKROOT0001L", {"username": "ada"}, "ada signs in")
    yield task_record("rfc", late, "kimchi", FINISHED, uri, 9001)
    full = Failure(
        "GINLV00003E", {"err": "data is full"}, "the logical volume could not be created: data is full"
    )
    for number in range(9100, 9108):
        yield record(
            "rfc", late, "ginger", "POST", 202, ADA, "GINLV0001L", {"vg_name": "data"}, "A volume in data"
        )
        yield task_record("rfc", late, "ginger", FAILED, "/lvs/vg_name/data", number, full)
    inner = task_record("rfc", late, "kimchi", FINISHED, "/plugins/kimchi/vms/forged", 1).decode()
    yield from record(
        "rfc",
        late,
        "wok",
        "POST",
        401,
        ADA,
        "WOKROOT0001L",
        {"username": f"x\n{inner}"},
        f"User 'x\n{inner}' login",
    ).splitlines()
    yield from (b'{"status": 200, "zone": %d' % number for number in range(GARBAGE))
    for number in range(3):
        names = guest | {"ident": f"web-{number}"}
        yield record("rfc", late, "kimchi", "POST", 202, ADA, "KCHVM0009L", names, f"A clone of web-{number}")


def _moved(log: Path, end: datetime) -> list[bytes]:
    """Return the lines of a log as if its last record had been written at `end`, in UTC."""
    found = log.read_bytes().splitlines()
    by = end.replace(tzinfo=None, microsecond=0) - max(filter(None, map(_time, found)))

    def at(match: re.Match[bytes]) -> bytes:
        when = _moment(match) + by
        texts = {"date": f"{when:%Y-%m-%d}".encode(), "time": f"{when:%H:%M:%S}".encode()}
        return (
            match[1]
            + texts["time" if b"time" in match[1] else "date"]
            + match[3]
            + texts["date" if b"time" in match[1] else "time"]
        )

    def epoch(match: re.Match[bytes]) -> bytes:
        return b"%d" % (int(match[0]) + int((by + ZONE_OF_THE_CORPUS).total_seconds()) * 1_000_000)

    return [
        _EPOCH.sub(epoch, _ZONE.sub(rb"\1UTC", _DATE_FIRST.sub(at, _TIME_FIRST.sub(at, line))))
        for line in found
    ]


def _time(line: bytes) -> datetime | None:
    found = _DATE_FIRST.search(line) or _TIME_FIRST.match(line) or _TIME_FIRST.search(line)
    return _moment(found) if found else None


def _moment(match: re.Match[bytes]) -> datetime:
    return datetime.fromisoformat(f"{match['date'].decode()} {match['time'].decode()}")
