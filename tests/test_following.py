"""`log = auto` on a host whose Wok is installed, upgraded or read late, while the daemon runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.config.config import HostLogs, load, logs_of_this_host
from exporter.daemon import daemon as daemons
from exporter.daemon.daemon import Daemon
from exporter.source.tail import Tail
from exporter.store.reader import Reader

OLD = "var/log/wok/wok-req.log"
NEW = "var/lib/wok/user-requests.data"
ERRORS = "var/log/wok/wok-error.log"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without Wok, whose daemon looks often."""
    monkeypatch.setattr(daemons, "SEARCH_SECONDS", 0.02)
    for log in (OLD, NEW):
        (tmp_path / log).parent.mkdir(parents=True)
    return tmp_path


def request(number: int) -> str:
    info = {"req": "POST", "status": 200, "app": "/plugins/kimchi", "user": "ada", "date": "2026-11-23"}
    info |= {"time": f"10:00:{number:02}", "zone": "UTC"}
    return (
        json.dumps({"info": info, "message": {"code": "KCHVM0004L", "params": {"ident": f"g{number}"}}})
        + "\n"
    )


def append(path: Path, *numbers: int) -> None:
    with path.open("a") as file:
        file.write("".join(map(request, numbers)))


@contextmanager
def running(host: Path) -> Iterator[Daemon]:
    flags = {"state": str(host / "state"), "listen": "off", "timezone": "UTC", "start_at": "beginning"}
    flags |= {"poll_interval": "10ms", "messages": "off", "instance": "test"}
    daemon = Daemon(load(flags, {}, "run", root=host), {}, root=host)
    stopped = threading.Event()
    thread = threading.Thread(target=daemon.run, args=(stopped,))
    thread.start()
    try:
        yield daemon
    finally:
        stopped.set()
        thread.join(10)


def until(host: Path, is_so: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Wait for counters, added up over their labels."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        reader = Reader(host / "state")
        counts: dict[str, float] = {}
        for series, value in reader.snapshot().counters.items():
            counts[series[0]] = counts.get(series[0], 0) + value
        reader.close()
        if is_so(counts):
            return counts
        time.sleep(0.02)
    raise AssertionError(f"not in time: {counts}")


def requests(count: int) -> Callable[[dict[str, float]], bool]:
    return lambda counts: counts.get("wok_requests_total") == count


def test_an_upgraded_wok_is_followed(host: Path) -> None:
    """The old log is read to its end, then the new one from its beginning, and that is no loss."""
    append(host / OLD, 1, 2)
    with running(host):
        until(host, requests(2))
        append(host / OLD, 3)
        append(host / NEW, 4, 5)
        until(host, requests(5))
        append(host / NEW, 6)
        counts = until(host, requests(6))
    with running(host):
        append(host / NEW, 7)
        until(host, requests(7))

    assert counts.get("wok_exporter_lost_records_total", 0) == 0
    assert counts.get("wok_exporter_log_gaps_total", 0) == 0


def test_a_line_between_the_last_read_and_the_search_is_not_lost(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the old Wok writes after the exporter read its log, and before the new log is found, is read."""
    append(host / OLD, 1)

    def upgraded_now(root: Path) -> HostLogs:
        if not (host / NEW).exists():
            append(host / OLD, 2, 3)
            append(host / NEW, 4, 5)
        return logs_of_this_host(root)

    monkeypatch.setattr(daemons, "logs_of_this_host", upgraded_now)
    with running(host):
        until(host, requests(5))


def test_a_log_that_comes_later_is_found(host: Path) -> None:
    """Where there is no log at the start, the first that appears in either place is followed."""
    with running(host):
        append(host / OLD, 1)
        until(host, requests(1))


def test_an_error_log_that_comes_later_is_read(host: Path) -> None:
    """Restarts of wokd are read from the error log as soon as it can be."""
    append(host / NEW, 1)
    with running(host) as daemon:
        until(host, requests(1))
        (host / ERRORS).write_text("[23/Nov/2026:10:00:16] ENGINE Bus STARTED\n")
        end = time.monotonic() + 10
        while not any("wok-error.log" in line for line in daemon.announcement()):
            assert time.monotonic() < end, "never read"
            time.sleep(0.02)


def test_an_access_log_that_comes_later_is_read(host: Path) -> None:
    """The status of requests is looked up in the access log as soon as it can be read."""
    append(host / NEW, 1)
    with running(host) as daemon:
        until(host, requests(1))
        (host / ERRORS).with_name("wok-access.log").touch()
        end = time.monotonic() + 10
        while not any("wok-access.log" in line for line in daemon.announcement()):
            assert time.monotonic() < end, "never read"
            time.sleep(0.02)


def test_a_rename_is_a_303(host: Path) -> None:
    """A daemon counts a PUT that Wok logs as 500 with the status in its access log."""
    access = (host / ERRORS).with_name("wok-access.log")
    access.write_text('::1 - - [23/Nov/2026:10:00:01] "PUT /plugins/kimchi/vms/g1 HTTP/1.1" 303 1 "" ""\n')
    renamed = request(1).replace("POST", "PUT").replace("200", "500").replace('"user"', '"ip": "::1", "user"')
    with running(host):
        (host / NEW).write_text(renamed)
        append(host / NEW, 5)
        until(host, requests(2))
    reader = Reader(host / "state")
    counters = reader.snapshot().counters
    reader.close()

    assert counters["wok_requests_total", "kimchi", "PUT", "303"] == 1
    assert counters["wok_exporter_access_answers_total", "corrected"] == 1


def test_a_log_that_is_named_is_kept(host: Path) -> None:
    """A log that the configuration names is followed whatever else appears."""
    config = load(
        {"log": str(host / OLD), "state": str(host / "state"), "instance": "test"}, {}, "run", root=host
    )

    assert config.automatic == {"wok_error_log", "wok_access_log"}
    assert logs_of_this_host(host) == HostLogs(host / NEW, None, None)


def test_a_position_of_another_log_is_no_gap(host: Path) -> None:
    """A log that is followed after another one begins at its beginning, and nothing is reported as lost."""
    append(host / OLD, 1)
    old = Tail(host / OLD)
    position = [old.read(1000), old.read(1000)][-1].position
    append(host / NEW, 2)
    chunk = Tail(host / NEW, position).read(1000)

    assert ([line.offset for line in chunk.lines], chunk.events) == ([0], [])
