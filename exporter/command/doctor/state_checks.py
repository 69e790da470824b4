"""Checks of the state and of the running daemon: its lock, its port, and what it says of itself."""

from __future__ import annotations

import http.client
import os
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from exporter.command.doctor.findings import Finding, ok, problem, warning
from exporter.config.options import Config
from exporter.config.values import Address
from exporter.records import TaskRow
from exporter.store.database import LOCK_FILE, STATE_FILE, StoreError, size_on_disk
from exporter.store.reader import Reader

TASKS_SAMPLED = 1000
TASKS_MIN = 10
UNSURE_SHARE = 0.2
"""More ambiguous or unmatched tasks than this are worth a warning."""
QUEUE_SHARE = 0.5
SECONDS_MAX = 5.0
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to connect to, for a server that listens everywhere


class StateFacts(NamedTuple):
    """What the state says: `committed` is the time of the last commit in seconds, 0 without one."""

    findings: list[Finding]
    committed: float = 0.0


def is_running(state: Path) -> bool:
    """Return whether a daemon holds the lock of a state; looks without touching it."""
    try:
        status = (state / LOCK_FILE).stat()
        text = Path("/proc/locks").read_text("ascii", "replace")
    except OSError:
        return False
    sought = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(len(words := line.split()) > 5 and words[5] == sought for line in text.splitlines())


def state(config: Config) -> StateFacts:
    """Check the state: there, readable, healthy, how large, and how well tasks are matched to
    requests.
    """
    directory = config.state
    assert directory is not None, "a daemon has a state"
    try:
        with closing(Reader(directory)) as reader:
            snapshot = reader.overview()
            tasks = reader.tasks(limit=TASKS_SAMPLED).tasks
            committed = reader.snapshot().committed_seconds
    except StoreError as error:
        if not (directory / STATE_FILE).exists() and not is_running(directory):
            return StateFacts(
                [
                    warning(
                        "state",
                        f"{directory} has no state yet",
                        "Start wok-exporter: systemctl start wok-exporter",
                    )
                ]
            )
        return StateFacts(
            [problem("state", str(error), "See the journal of the service: journalctl -u wok-exporter")]
        )
    size = size_on_disk(directory / STATE_FILE)
    findings = [ok("state", f"{directory}: healthy, {size / 2**20:.1f} MiB")]
    queued = sum(status.bytes for status in snapshot.journal.values())
    records = sum(status.records for status in snapshot.journal.values())
    if queued > QUEUE_SHARE * config.journal_bytes_max:
        findings.append(
            problem(
                "queue",
                f"delivery queue over half full ({queued / 2**20:.0f} MiB); the oldest data will be dropped",
                "Make the backend reachable (see below), or raise journal_bytes_max",
            )
        )
    elif records:
        findings.append(ok("queue", f"{records:,} items are queued ({queued / 2**20:.1f} MiB)"))
    return StateFacts([*findings, *_joined(tasks)], committed)


def _joined(tasks: Sequence[TaskRow]) -> Iterator[Finding]:
    grades = Counter(task.correlation for task in tasks)
    if not tasks:
        yield ok("tasks", "no finished task yet")
        return
    said = f"of the last {len(tasks):,} finished tasks: " + ", ".join(
        f"{grades[grade]:,} {grade}" for grade in ("exact", "likely", "ambiguous", "none") if grades[grade]
    )
    unsure = grades["ambiguous"] + grades["none"]
    if len(tasks) >= TASKS_MIN and unsure > UNSURE_SHARE * len(tasks):
        yield warning(
            "tasks",
            said,
            "Many tasks are not matched to their request: check the time zone, and link Wok's plug-in tasklog",
        )
    else:
        yield ok("tasks", said)


def daemon(config: Config) -> Iterator[Finding]:
    """Check whether the daemon runs, and what it answers at its port."""
    assert config.state is not None, "a daemon has a state"
    runs = is_running(config.state)
    if config.listen is None:
        yield ok("daemon", "running") if runs else _not_running()
        return
    host = ANY.get(config.listen.host, config.listen.host)
    address = Address(host, config.listen.port)
    try:
        ready = _answer(config, address, "/readyz")
        health = _answer(config, address, "/healthz")
    except ConnectionRefusedError:
        yield (
            _not_running()
            if not runs
            else problem(
                "port",
                f"the daemon runs, but nothing listens on {address}",
                "Is `listen` different in its configuration?",
            )
        )
        return
    except (OSError, http.client.HTTPException) as error:
        yield problem(
            "port",
            f"{address} does not answer: {error}",
            "Another program may use the port: see `ss -ltnp`, and set `listen` to another one",
        )
        return
    if health != (200, "ok\n"):
        yield problem(
            "port",
            f"another program answers at {address}",
            "Set `listen` to a free port, or stop the other program (see `ss -ltnp`)",
        )
    elif not runs:
        yield warning(
            "daemon",
            f"a wok-exporter answers at {address}, but with another state than {config.state}",
            "Use the same configuration and environment as the service",
        )
    elif ready[0] == 200:
        yield ok("daemon", f"running and ready at {address}")
    elif ready[0] == 401:
        yield ok("daemon", f"running at {address}; /readyz needs a password")
    else:
        for line in ready[1].splitlines()[:5]:
            yield problem(
                "daemon", f"not ready: {line}", "Do what it says, and see journalctl -u wok-exporter"
            )


def _not_running() -> Finding:
    return problem(
        "daemon",
        "wok-exporter is not running",
        "Start it: systemctl start wok-exporter, then systemctl status wok-exporter",
    )


def _answer(config: Config, address: Address, path: str) -> tuple[int, str]:
    connection: http.client.HTTPConnection
    if config.tls_certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # it is this host, and nothing secret is sent
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=SECONDS_MAX, context=context
        )
    else:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=SECONDS_MAX)
    with closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(65_536).decode("utf-8", "replace")
