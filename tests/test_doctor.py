"""`doctor` against each fault that it must find, with real logs, states, daemons, ports and backends."""

from __future__ import annotations

import http.server
import io
import json
import os
import pwd
import shutil
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.command.doctor.doctor import doctor
from exporter.command.doctor.findings import Finding, report
from exporter.command.doctor.host_checks import clock
from exporter.command.doctor.log_checks import is_shift
from exporter.terminal.task_table import width_of
from tests.error_log_made import BOOT
from tests.program import environ, free_port, request_line, run, running, wait_until
from tests.sink import Reply, Sink

ZONE = "America/Sao_Paulo"


class Host(NamedTuple):
    """A host's files below `root`, and the flags of its daemon."""

    root: Path
    log: Path
    errors: Path
    state: Path
    port: int

    def flags(self, **more: str) -> dict[str, str | None]:
        return {
            "log": str(self.log),
            "wok_error_log": str(self.errors),
            "state": str(self.state),
            "timezone": "UTC",
            "listen": f"127.0.0.1:{self.port}",
            "instance": "x",
            **more,
        }

    def words(self, **more: str) -> list[str]:
        return [
            word
            for key, value in self.flags(**more).items()
            for word in (f"--{key.replace('_', '-')}", str(value))
        ]


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    """A host whose Wok has just written a record, and was started before."""
    library = tmp_path / "usr/lib/python2.7/site-packages/wok"
    (library / "plugins").mkdir(parents=True)
    (library / "i18n.py").write_text("messages = {}\n")
    log = tmp_path / "user-requests.data"
    log.write_bytes(b"".join(request_line(time.time() - 60 + n, f"web{n}") for n in range(30)))
    errors = tmp_path / "wok-error.log"
    errors.write_bytes(started(time.time() - 3600) + started(time.time() - 30))
    return Host(tmp_path, log, errors, tmp_path / "state", free_port())


def started(seconds: float) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("[%d/%b/%Y:%H:%M:%S] ENGINE Bus STARTED\n").encode()


def asked(
    host: Host,
    env: Mapping[str, str] | None = None,
    *,
    file: Path | None = None,
    user: str = "",
    **flags: str,
) -> tuple[int, dict[str, list[Finding]]]:
    """Return the exit code and the findings by check."""
    out = io.StringIO()
    code = doctor(
        host.flags(**flags),
        env or {},
        environment_file=file,
        as_json=True,
        out=out,
        user=user,
        root=host.root,
    )
    answer: dict[str, Any] = json.loads(out.getvalue())
    found: dict[str, list[Finding]] = {}
    for one in answer["findings"]:
        found.setdefault(one["check"], []).append(Finding(**one))
    levels = [finding.level for findings in found.values() for finding in findings]
    assert answer["is_healthy"] is (code == 0) is ("problem" not in levels)
    assert all(finding.remedy for findings in found.values() for finding in findings if finding.level != "ok")
    return code, found


def levels(found: Mapping[str, list[Finding]], check: str) -> set[str]:
    return {finding.level for finding in found[check]}


@contextmanager
def at_work(host: Host, env: Mapping[str, str] | None = None, **flags: str) -> Iterator[None]:
    """A daemon that has read the log."""
    more = host.words(**{"start_at": "beginning", **flags})
    with running("run", *more, said=host.root / "said", env=env or environ()) as daemon:
        daemon.wait_for("backlog read")
        yield


# --- all is well


def test_a_healthy_host(host: Host) -> None:
    """With a daemon at work and a backend that takes all, every check is fine, and the exit code is 0."""
    with Sink() as sink, at_work(host, env=environ(**sink.environ())):
        wait_until(lambda: len(sink.spans()) == 30)
        code, found = asked(host, sink.environ())
        env = environ(**sink.environ(), COLUMNS="80")
        printed = run("doctor", *host.words(), env=env)

    del found["clock"]  # this machine's
    assert {check: levels(found, check) for check in found} == {check: {"ok"} for check in found}
    assert code == 0
    for check in (
        "environment",
        "configuration",
        "wok",
        "plug-in",
        "log",
        "format",
        "time zone",
        "wok-error.log",
    ):
        assert check in found
    assert {"state", "tasks", "daemon", "traces", "logs"} <= set(found)
    assert "2 starts of wokd" in found["wok-error.log"][0].what
    assert "30 parsed (json)" in found["format"][0].what
    assert f"ok       daemon         running and ready at 127.0.0.1:{host.port}\n" in printed.stdout
    assert printed.returncode == 0


# --- variables and configuration


def test_the_services_variables(host: Host) -> None:
    """Variables come from the service's file, as systemd reads it; those of the shell alone, and lines for a shell,
    are named.
    """
    with Sink() as sink:
        endpoint = sink.environ()["OTEL_EXPORTER_OTLP_ENDPOINT"]
        file = host.root / "default"
        file.write_text(f'OTEL_EXPORTER_OTLP_ENDPOINT="{endpoint}"\n')
        good = asked(host, {}, file=file)[1]
        file.write_text(f"export OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}\n")
        shell = asked(host, {}, file=file)[1]
        file.write_text("")
        elsewhere = asked(host, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, file=file)[1]

    assert levels(good, "environment") == {"ok"}
    assert levels(good, "traces") == {"ok"}
    assert levels(shell, "environment") == {"problem"}
    assert "line 1: `export` is not allowed" in shell["environment"][0].what
    assert levels(shell, "backends") == {"warning"}
    assert (
        "OTEL_EXPORTER_OTLP_ENDPOINT is set in this shell, but is not in" in elsewhere["environment"][-1].what
    )


def test_a_configuration_with_mistakes(host: Host) -> None:
    """Every mistake in the configuration is a problem with its remedy."""
    code, found = asked(host, {"WOK_EXPORTER_PRIVACY": "perhaps", "WOK_EXPORTER_COLOUR": "red"})

    assert code == 1
    assert [finding.what.split(":")[0] for finding in found["configuration"]] == [
        "WOK_EXPORTER_COLOUR",
        "WOK_EXPORTER_PRIVACY",
    ]


# --- Wok and its logs


@pytest.mark.parametrize("kind", ["linked", "dangling", "none"])
def test_the_plugin(host: Host, kind: str) -> None:
    """The plug-in is linked, is a link that leads nowhere, or is optional."""
    link = host.root / "usr/lib/python2.7/site-packages/wok/plugins/tasklog"
    target = host.root / "tasklog"
    if kind != "none":
        link.symlink_to(target)
    if kind == "linked":
        target.mkdir()
        (target / "__init__.py").touch()
    found = asked(host)[1]["plug-in"][0]

    assert found.level == ("problem" if kind == "dangling" else "ok")
    assert {"linked": "is linked", "dangling": "leads nowhere", "none": "is not linked"}[kind] in found.what


def test_no_wok(host: Host) -> None:
    """Without an installed Wok this is said, and is fine for a log of another host."""
    shutil.rmtree(host.root / "usr")

    assert levels(asked(host)[1], "wok") == {"warning"}


def missing(host: Host) -> None:
    host.log.unlink()


def empty(host: Host) -> None:
    host.log.write_bytes(b"")


def directory(host: Host) -> None:
    host.log.unlink()
    host.log.mkdir()


def fifo(host: Host) -> None:
    host.log.unlink()
    os.mkfifo(host.log)


def archive(host: Host) -> None:
    with tarfile.open(host.log, "w") as tar:
        tar.add(host.errors)


def old(host: Host) -> None:
    os.utime(host.log, (0, time.time() - 30 * 86_400))


@pytest.mark.parametrize(
    ("damage", "level", "said"),
    [
        (missing, "problem", "No such file or directory"),
        (empty, "warning", "is empty"),
        (directory, "problem", "Is a directory"),
        (fifo, "problem", "not a regular file"),
        (archive, "problem", "a tar archive"),
        (old, "warning", "written 30d 00h ago"),
    ],
)
def test_a_log_that_is_not_there_or_does_not_grow(
    host: Host, damage: Callable[[Host], None], level: str, said: str
) -> None:
    """A log that is missing, empty, of another kind or old is told as what it is."""
    damage(host)
    found = asked(host)[1]["log"][0]

    assert (found.level, said in found.what) == (level, True), found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which looks at files as another user")
def test_a_log_that_the_service_cannot_read(host: Host) -> None:
    """Asked by root, files are looked at as the service's user, which may not read them."""
    nobody = pwd.getpwuid(65534).pw_name
    host.log.chmod(0o600)
    host.errors.chmod(0o600)
    code, found = asked(host, user=nobody)

    assert code == 1
    assert f"cannot read {host.log} as user {nobody}: Permission denied" in found["log"][0].what
    assert "setfacl" in found["log"][0].remedy
    assert levels(found, "wok-error.log") == {"warning"}


@pytest.mark.parametrize(("bad", "level"), [(0, "ok"), (1, "warning"), (30, "problem"), (-1, "problem")])
def test_a_format_that_is_unknown(host: Host, bad: int, level: str) -> None:
    """Some lines that cannot be parsed are a warning; many at the end, or nothing else, are a problem."""
    good = b"" if bad < 0 else host.log.read_bytes()
    host.log.write_bytes(good + b"no record\n" * abs(bad))

    assert levels(asked(host)[1], "format") == {level}


def test_time_zones_that_contradict(host: Host) -> None:
    """A configured zone that is not the log's, and one in which records are from the future, are problems."""
    stated = asked(host, timezone=ZONE)[1]
    host.log.write_bytes(host.log.read_bytes().replace(b'"zone": "UTC"', b'"zone": "XYZ"'))
    future = asked(host, timezone=ZONE)[1]
    past = asked(host, timezone="Asia/Kolkata")[1]
    right = asked(host)[1]

    assert "the log's times are UTC (+00:00), the configured zone is America/Sao_Paulo (-03:00)" in (
        stated["time zone"][0].what
    )
    assert levels(stated, "time zone") == {"problem"}
    assert "in the future" in future["time zone"][0].what
    assert levels(past, "time zone") == {"warning"}
    assert levels(right, "time zone") == {"ok"}


def test_an_error_log_in_another_zone(host: Host) -> None:
    """wok-error.log has no zone: that its last line is hours from when it was written tells that the zone is wrong."""
    host.errors.write_bytes(started(time.time() - 3 * 3600))
    shifted = asked(host)[1]["wok-error.log"]
    host.errors.unlink()
    gone = asked(host)[1]["wok-error.log"]

    assert [finding.level for finding in shifted] == ["ok", "problem"]
    assert "another time zone" in shifted[1].what
    assert [finding.level for finding in gone] == ["warning"]


def test_an_access_log(host: Host) -> None:
    """wok-access.log may be missing or switched off; one that is named or exists must be readable."""
    path = host.root / "var/log/wok/wok-access.log"
    path.parent.mkdir(parents=True)
    gone = asked(host)[1]["wok-access.log"]
    named = asked(host, wok_access_log=str(path))[1]["wok-access.log"]
    path.mkdir()
    unusable = asked(host, wok_access_log=str(path))[1]["wok-access.log"]
    off = asked(host, wok_access_log="off")[1]["wok-access.log"]
    path.rmdir()
    path.touch()
    there = asked(host)[1]["wok-access.log"]

    found = [finding.level for findings in (gone, named, unusable, off, there) for finding in findings]
    assert found == ["ok", "warning", "warning", "ok", "ok"]


def test_a_mark_alone_is_no_start(host: Host) -> None:
    """A line of a start without those that wokd writes before it is not counted: anybody can write it."""
    host.errors.write_bytes(b"\n".join([*BOOT, b"", BOOT[-1], b""]))

    assert ": 1 start of wokd, the last one " in asked(host)[1]["wok-error.log"][0].what


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, False), (59, False), (10_800, True), (-19_790, True), (5000, False), (90_000, False)],
)
def test_what_looks_like_a_shift(seconds: float, *, expected: bool) -> None:
    """Only multiples of half an hour, within the zones that there are, look like a wrong time zone."""
    assert is_shift(seconds) is expected


# --- the state and the daemon


def test_no_daemon(host: Host) -> None:
    """Without a daemon and a state both are said, with how to start it."""
    found = asked(host)[1]

    assert levels(found, "state") == {"warning"}
    assert [(one.level, one.what) for one in found["daemon"]] == [("problem", "wok-exporter is not running")]


def test_a_damaged_state(host: Host) -> None:
    """A state that cannot be read is a problem, in the store's words."""
    with at_work(host):
        pass
    for rest in host.state.glob("state.db-*"):
        rest.unlink()  # SQLite would mend the file from its -wal
    (host.state / "state.db").write_bytes(b"no database, but long enough to be looked at" * 100)

    assert levels(asked(host)[1], "state") == {"problem"}


def test_a_queue_that_is_over_half_full(host: Host) -> None:
    """A delivery queue over half full is a problem before data is lost."""
    env = environ(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    host.log.write_bytes(b"".join(request_line(time.time() - 60 + n / 99, f"w{n}") for n in range(3000)))
    with at_work(host, env=env):
        found = asked(host, journal_bytes_max="1MiB")[1]

    assert levels(found, "queue") == {"problem"}
    assert "over half full" in found["queue"][0].what


def test_a_daemon_that_is_not_ready(host: Host) -> None:
    """What /readyz of the daemon says is a problem with its remedy."""
    env = environ(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    with at_work(host, env=env):
        wait_until(lambda: levels(asked(host)[1], "daemon") == {"problem"})
        found = asked(host)[1]["daemon"]

    assert {"refuses connections" in one.what for one in found} == {True}


def test_another_program_at_the_port(host: Host) -> None:
    """A port that another web server or a silent program has is told."""
    server = http.server.HTTPServer(("127.0.0.1", host.port), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    other = asked(host)[1]["port"]
    server.shutdown()
    server.server_close()
    with socket.create_server(("127.0.0.1", host.port)) as mute:
        mute.listen()
        threading.Thread(target=hang_up, args=(mute,), daemon=True).start()
        silent = asked(host)[1]["port"]

    assert [one.level for one in other + silent] == ["problem", "problem"]
    assert "another program answers" in other[0].what
    assert "does not answer" in silent[0].what


def hang_up(listener: socket.socket) -> None:
    listener.accept()[0].close()


def test_a_daemon_with_another_state(host: Host) -> None:
    """A daemon that answers at the port but has another state is told."""
    with at_work(host):
        found = asked(host, state=str(host.root / "other"))[1]

    assert levels(found, "daemon") == {"warning"}


def test_a_clock_that_was_set_back() -> None:
    """A clock behind the last commit of the state is a problem."""
    assert [finding.level for finding in clock(1000.0, 5000.0)] == ["problem"]


# --- backends


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=401), "HTTP 401"),
        (Reply(status=404), "HTTP 404"),
        (Reply(status=503), "HTTP 503"),
        (Reply(status=302, headers={"Location": "http://x/"}), "redirects"),
        (
            Reply(headers={"Content-Type": "text/html"}, body=b"<html>"),
            "does not respond like an OTLP receiver",
        ),
        (Reply(fault="close"), "closes connections without a response"),
        (Reply(fault="hang"), "times out"),
    ],
)
def test_a_backend_that_does_not_take_it(host: Host, reply: Reply, said: str) -> None:
    """What a backend answers to an empty request is told for each signal, with the remedy."""
    with Sink() as sink:
        sink.judge = lambda _: reply
        code, found = asked(host, {**sink.environ(), "OTEL_EXPORTER_OTLP_TIMEOUT": "2"})

    assert code == 1
    for signal in ("traces", "logs"):
        assert [one.level for one in found[signal]] == ["problem"]
        assert said in found[signal][0].what


def test_a_backend_that_is_not_there(host: Host) -> None:
    """A closed port, a name that does not resolve, and a protocol that is not the port's, are told apart."""
    nobody = f"http://127.0.0.1:{free_port()}"
    with Sink("grpc") as grpc:
        port = grpc.environ()["OTEL_EXPORTER_OTLP_ENDPOINT"].rpartition(":")[2]
        said = {
            name: asked(host, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_LOGS_EXPORTER": "none"})[1]
            for name, endpoint in (
                ("refused", nobody),
                ("dns", "http://no-such-host.invalid:4318"),
                ("grpc", f"http://127.0.0.1:{port}"),
            )
        }

    assert "refuses connections" in said["refused"]["traces"][0].what
    assert "cannot be resolved" in said["dns"]["traces"][0].what
    assert "speaks gRPC" in said["grpc"]["traces"][0].what
    assert {levels(found, "logs") == {"ok"} for found in said.values()} == {True}


def test_variables_of_backends_that_are_wrong(host: Host) -> None:
    """A wrong variable, and the switch that turns all off, are told by name."""
    wrong = asked(host, {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"})[1]
    off = asked(host, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})[1]

    assert levels(wrong, "traces") == {"problem"}
    assert wrong["traces"][0].what.startswith("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert levels(off, "backends") == {"warning"}


def test_it_changes_nothing(host: Host) -> None:
    """No file is made or written, and nothing but empty requests is sent."""
    with Sink() as sink:
        with at_work(host, env=environ(**sink.environ())):
            wait_until(lambda: len(sink.spans()) == 30)
        before = {
            path: path.stat().st_mtime_ns
            for path in host.root.rglob("*")
            if path.is_file() and path.suffix != ".db-shm"
        }
        count = len(sink.spans())
        asked(host, sink.environ())
        asked(host, sink.environ(), state=str(host.root / "new"))

    assert before == {
        path: path.stat().st_mtime_ns
        for path in host.root.rglob("*")
        if path.is_file() and path.suffix != ".db-shm"
    }
    assert len(sink.spans()) == count
    assert not (host.root / "new").exists()


def test_a_lock_is_seen_without_being_touched(host: Host) -> None:
    """That a daemon runs is read from /proc/locks: its lock is not taken, not even for a moment."""
    from exporter.command.doctor.state_checks import is_running  # noqa: PLC0415
    from exporter.store.writer import Store  # noqa: PLC0415

    before = is_running(host.state)
    with closing(Store(host.state)):
        during = is_running(host.state)

    assert (before, during, is_running(host.state)) == (False, True, False)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_findings_fit_a_terminal(width: int) -> None:
    """Sentences and remedies are wrapped at their blanks, below their first word; in a pipe each is one line."""
    what = "cannot read /var/lib/wok/user-requests.data: 仮想マシン 仮想マシン 仮想マシン \x1b[31m"
    findings = [Finding("log", "problem", what, "Check `log` in the configuration, or start wokd. " * 3)]
    whole, lines = list(report(findings)), list(report(findings, width))

    assert len(whole) == 4
    assert all(width_of(line) <= width and line.isprintable() for line in lines)
    assert " ".join(lines).split() == " ".join(whole).split()
    assert all(line.startswith(" " * 24) for line in lines[1:-2])
