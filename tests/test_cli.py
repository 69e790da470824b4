"""The command line from outside: help, refusals, pipes that close, terminals, passwords."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter import __version__
from exporter.cli import COMMANDS
from exporter.config.options import OPTIONS
from exporter.simulate.busy import busy
from tests.program import command, environ, request_line, run, running

OWN_FLAGS = {
    "run": {"--check-config", "--environment-file"},
    "backfill": {"--since", "--environment-file"},
    "doctor": {"--json", "--environment-file", "--user"},
    "check": {"--json"},
    "tasks": {
        *("--json", "--watch", "--running", "--failed", "--limit"),
        *("--user", "--operation", "--app", "--outcome", "--since", "--until", "--text"),
    },
    "trace": {"--json", "--file"},
    "tasklog": {"--json", "--root", "--source", "--wokd"},
}
SECRET = "correct horse battery staple"


@pytest.fixture(name="log", scope="module")
def _log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thousands of requests, and hundreds of tasks: more output than a pipe holds."""
    log = tmp_path_factory.mktemp("log") / "user-requests.data"
    start = datetime(2026, 8, 12, tzinfo=UTC)
    lines = busy("json", start=start, requests=3000, per_second=5.0, seed=4)
    log.write_bytes(b"".join(line.data + b"\n" for line in lines))
    return log


# --- help and refusals


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option(name: str) -> None:
    """--help of a command exits with 0 and has its flags, all of them, and no other command's."""
    done = run(name, "--help")
    mine = {
        option.flag for option in OPTIONS.values() if (COMMANDS[name].settings_of or name) in option.commands
    }

    assert (done.returncode, done.stderr) == (0, "")
    options = " [option ...]" if COMMANDS[name].is_configured else ""
    assert done.stdout.startswith(f"usage: wok-exporter {name}{options}")
    assert set(re.findall(r"^ +(--[a-z-]+)", done.stdout, re.MULTILINE)) == {
        *mine,
        *OWN_FLAGS.get(name, ()),
        *(("--config",) if COMMANDS[name].is_configured else ()),
    }


def test_help_names_every_command() -> None:
    """--help without a command has all of them."""
    done = run("--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^    ([a-z-]+)", done.stdout, re.MULTILINE) == [*COMMANDS]


def test_a_hash_needs_no_configuration() -> None:
    """hash-password works on a machine whose configuration has an error."""
    done = run("hash-password", stdin=f"{SECRET}\n", env=environ(WOK_EXPORTER_LISTEN="nowhere"))

    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_command() -> None:
    """`wok-exporter` alone prints the same help as --help."""
    assert (run().returncode, run().stdout, run().stderr) == (0, run("--help").stdout, "")


def test_the_version() -> None:
    """--version is one line on stdout."""
    done = run("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"wok-exporter {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["observe"], "unknown command 'observe'"),
        (["chek", "log"], "unknown command 'chek' (did you mean check?)"),
        (["check", "log", "--jsn"], "unknown option --jsn (did you mean --json?)"),
        (["run", "--log-fromat=json"], "unknown option --log-fromat (did you mean --log-format?)"),
        (["check", "log", "--privacy", "hash"], "wok-exporter check does not use this setting"),
        (["--log", "x", "run"], "wok-exporter run --log ..."),
        (["--verison"], "(did you mean --version?)"),
        (["run", "--colour", "red"], "--colour"),
        (["check"], "FILE"),
        (["tasks", "--running", "--failed"], "not allowed with"),
        (["tasks", "--limit", "many"], "--limit"),
        (["check", "log", "--state", "x"], "--state"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], word: str) -> None:
    """What is not known, or does not go together, is named on stderr, with the usage, and exits with 2."""
    done = run(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: wok-exporter")
    assert word in done.stderr.splitlines()[-1]


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    """Wrong values in the file, in the environment and in flags are told a line each, and exit with 2."""
    (tmp_path / "wok-exporter.toml").write_text('poll_interval = "soon"\ncolour = "red"\n')
    flags = ["--config", tmp_path / "wok-exporter.toml", "--listen", "nowhere"]
    done = run("run", *flags, env=environ(WOK_EXPORTER_PRIVACY="perhaps", WOK_EXPORTER_COLOUR="red"))

    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["error", str(tmp_path / "wok-exporter.toml")],
        ["error", "WOK_EXPORTER_COLOUR"],
        ["error", f"{tmp_path / 'wok-exporter.toml'}"],
        ["error", "WOK_EXPORTER_PRIVACY"],
        ["error", "--listen"],
    ]


# --- the configuration


def test_the_configuration_in_force(tmp_path: Path) -> None:
    """--check-config prints every key, its value and where that came from, endpoints with their protocols, warns on
    stderr, shows no secret, and makes no state.
    """
    config = tmp_path / "wok-exporter.toml"
    config.write_text('task_expiry = "12h"\nlisten = "0.0.0.0:9"\n')
    variables = tmp_path / "variables"
    variables.write_text(
        f"OTEL_EXPORTER_OTLP_ENDPOINT='http://ada:{SECRET.split(maxsplit=1)[0]}@collector:4318'\nOTEL_EXPORTER_OTLP_PROTOCOL=grpc\n"
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf\nOTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://logs:4317\n"
    )
    flags = ["--config", config, "--log", tmp_path / "log", "--state", tmp_path / "state", "--check-config"]
    done = run("run", *flags, "--environment-file", variables, env=environ(WOK_EXPORTER_PRIVACY="hash"))
    rows = dict(re.findall(r"^(\w+) = (.*)$", done.stdout, re.MULTILINE))

    assert done.returncode == 0
    assert list(rows) == list(OPTIONS)
    assert rows["task_expiry"].startswith('"12h" ')
    assert rows["task_expiry"].endswith(f"# {config}: task_expiry")
    assert re.fullmatch('"hash" +# WOK_EXPORTER_PRIVACY', rows["privacy"])
    assert re.fullmatch(f'"{tmp_path}/log" +# --log', rows["log"])
    assert rows["history_tasks"].endswith("# default")
    assert "# traces: sent to http://collector:4318/v1/traces (http/protobuf)\n" in done.stdout
    assert "# logs: sent to http://logs:4317 (grpc)\n" in done.stdout
    assert SECRET.split(maxsplit=1)[0] not in done.stdout + done.stderr
    assert "anyone who can reach 0.0.0.0:9 can read who did what" in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_file_of_variables_that_cannot_be_read(tmp_path: Path) -> None:
    """--environment-file with a file that is not there, or is not text, is refused; a line of a shell is warned of."""
    (tmp_path / "latin").write_bytes(b"A=\xe9")
    (tmp_path / "shell").write_text("export A=b\n")
    check = ["run", "--check-config", "--log", tmp_path / "log", "--environment-file"]
    done = [run(*check, tmp_path / name) for name in ("none", "latin", "shell")]

    assert [one.returncode for one in done] == [2, 2, 0]
    assert done[0].stderr.startswith("error: --environment-file: cannot read ")
    assert "warning: " in done[2].stderr


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "http://host:port"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", "gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10000", "seconds"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization", "name=value"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem", "cannot read"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment", "key=value"),
    ],
)
def test_mistakes_of_otel_variables(tmp_path: Path, variable: str, value: str, word: str) -> None:
    """A mistake in a variable of OpenTelemetry is found by --check-config, in a sentence that names the variable and
    what to write.
    """
    places = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", variable: value}
    done = run("run", "--log", tmp_path / "log", "--check-config", env=environ(**places))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"error: {variable}")
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_refuses_a_start(tmp_path: Path) -> None:
    """What --check-config finds a start finds, and leaves no lock behind."""
    log, state = tmp_path / "log", tmp_path / "state"
    log.touch()
    flags = ["--log", log, "--state", state, "--listen", "off"]
    refused = run("run", *flags, env=environ(OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318"))
    with running("run", *flags, said=tmp_path / "said") as daemon:
        daemon.wait_for("backlog read")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: OTEL_EXPORTER_OTLP_ENDPOINT")


# --- pipes and terminals


@pytest.mark.parametrize(
    "arguments", [["tasks", "--limit", "9999"], ["text"], ["tasks", "--json", "--limit", "9999"]]
)
def test_a_reader_that_has_seen_enough(log: Path, arguments: list[str]) -> None:
    """`... | head -1` ends quietly: no word on stderr, and 0."""
    with subprocess.Popen(
        command(*arguments, log), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        code = process.wait(60)

    assert first
    assert (code, said) == (0, b"")


@pytest.mark.parametrize("arguments", [["run", "--check-config"], ["check", "LOG"]])
def test_a_reader_that_was_never_there(log: Path, arguments: list[str]) -> None:
    """Short output, written at the end, into a pipe that nobody reads ends quietly as well."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        done = subprocess.run(
            command(*(str(log) if word == "LOG" else word for word in arguments)),
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environ(),
            check=False,
        )

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("more", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_on_a_terminal(log: Path, more: dict[str, str], *, is_coloured: bool) -> None:
    """A terminal gets colours, unless NO_COLOR or a dumb terminal forbids them."""
    plain = {name: value for name, value in environ(TERM="xterm").items() if name != "NO_COLOR"}
    assert (
        b"\x1b[" in on_a_terminal(["tasks", "--failed", "--limit", "5", log], plain | more)
    ) is is_coloured


def on_a_terminal(arguments: list[object], env: dict[str, str]) -> bytes:
    """Return what a command prints on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*arguments), stdout=theirs, stderr=theirs, stdin=theirs, env=env
    ) as process:
        os.close(theirs)
        printed = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not data:
                break
            printed += data
        code = process.wait(60)
    os.close(ours)
    assert code == 0, printed
    return printed


def test_a_terminal_that_knows_ascii_alone(tmp_path: Path) -> None:
    """A name that the terminal's alphabet lacks is escaped, and no traceback."""
    log = tmp_path / "user-requests.data"
    log.write_bytes(request_line(time.time(), "jos\u00e9-\u65e5\u672c"))
    done = run("text", log, env=environ(PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C"))

    assert (done.returncode, done.stderr) == (0, "")
    assert r"jos\xe9-\u65e5\u672c" in done.stdout


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children be interrupted: a shell makes its background jobs ignore it, and they all that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_is_quiet(tmp_path: Path) -> None:
    """Ctrl-C ends a command that reads with 130, and without a word."""
    fifo = tmp_path / "user-requests.data"
    big = busy("json", start=datetime(2026, 8, 12, tzinfo=UTC), requests=60_000, per_second=50.0, seed=1)
    fifo.write_bytes(b"".join(line.data + b"\n" for line in big))
    with subprocess.Popen(
        command("text", fifo), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ()
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is at work, and then waits for us to read on
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (130, b"")


# --- what is logged


def test_the_log_as_json(tmp_path: Path) -> None:
    """With --log-format json every line on stderr is an object, tracebacks and refusals of a start apart."""
    log = tmp_path / "user-requests.data"
    log.touch()
    flags = ["--log", log, "--state", tmp_path / "state", "--listen", "off", "--log-format", "json"]
    with running("run", *flags, said=tmp_path / "said") as daemon:
        daemon.wait_for("backlog read")
        code = daemon.stop()
    lines = [json.loads(line) for line in daemon.said.splitlines()]

    assert code == 0
    assert {"time", "level", "logger", "message"} == {key for line in lines for key in line}
    assert lines[-1]["message"] == "stopped"


@pytest.mark.parametrize("kind", ["journal", "file", "json"])
def test_the_form_of_the_log(tmp_path: Path, kind: str) -> None:
    """For the journal a line has its priority and no time; else it has the time with its zone; as JSON, with
    milliseconds.
    """
    said = tmp_path / "said"
    with said.open("wb") as stderr:
        status = os.fstat(stderr.fileno())
        env = environ(
            TZ="America/Sao_Paulo",
            WOK_EXPORTER_LISTEN="0.0.0.0:1",
            JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}" if kind == "journal" else "1:1",
            **({"WOK_EXPORTER_LOG_FORMAT": "json"} if kind == "json" else {}),
        )
        check = ["run", "--check-config", "--log", tmp_path / "log", "--instance", "x"]
        subprocess.run(command(*check), stdout=subprocess.DEVNULL, stderr=stderr, env=env, check=True)
    text = said.read_text()

    if kind == "journal":
        assert text.startswith("<4>WOK_EXPORTER_LISTEN: anyone who can reach")
    elif kind == "file":
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d -03:00 WARNING WOK_EXPORTER_LISTEN", text)
    else:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}-03:00", json.loads(text)["time"])


def test_errors_have_their_priority_in_the_journal(tmp_path: Path) -> None:
    """What prevents a start has the priority of an error in the journal, and no prefix elsewhere."""
    said = tmp_path / "said"
    texts = []
    for mine in (True, False):
        with said.open("wb") as stderr:
            status = os.fstat(stderr.fileno())
            stream = f"{status.st_dev}:{status.st_ino}" if mine else "1:1"
            env = environ(JOURNAL_STREAM=stream, WOK_EXPORTER_PRIVACY="x", WOK_EXPORTER_LISTEN="x")
            done = subprocess.run(command("run"), stderr=stderr, env=env, check=False)
        texts.append([line.split(" ")[0] for line in said.read_text().splitlines()])
        assert done.returncode == 2

    assert texts == [["<3>error:"] * 2, ["error:"] * 2]


# --- passwords


def test_a_password_and_its_hash(tmp_path: Path) -> None:
    """What hash-password prints lets its user in, and nobody else; /healthz asks nobody."""
    done = run("hash-password", stdin=f"{SECRET}\n")
    (tmp_path / "users").write_text(f"# who may look\nada:{done.stdout}")
    log = tmp_path / "user-requests.data"
    log.touch()
    flags = ["--log", log, "--state", tmp_path / "state", "--listen", "127.0.0.1:0"]
    with running("run", *flags, "--auth-file", tmp_path / "users", said=tmp_path / "said") as daemon:
        answers = [
            daemon.get("/metrics", {"Authorization": authorization})[0]
            for authorization in (basic("ada", SECRET), basic("ada", "guess"), basic("eve", SECRET), "")
        ]
        health = daemon.get("/healthz")

    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    assert answers == [200, 401, 401, 401]
    assert health == (200, "ok\n")


@pytest.mark.parametrize("checks", [True, False])
def test_a_certificate_that_is_none(tmp_path: Path, *, checks: bool) -> None:
    """A certificate that is none is refused with its name, by --check-config as well as by a start."""
    (tmp_path / "cert.pem").write_text("not a certificate")
    (tmp_path / "log").touch()
    flags = [
        "--log",
        tmp_path / "log",
        "--state",
        tmp_path / "state",
        "--tls-certificate",
        tmp_path / "cert.pem",
    ]
    flags += ["--check-config"] if checks else ["--listen", "127.0.0.1:0"]
    done = run("run", *flags)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: cannot read the certificate {tmp_path / 'cert.pem'}")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_no_password() -> None:
    """An empty password is refused."""
    done = run("hash-password", stdin="")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the password is empty")


@pytest.mark.parametrize("checks", [True, False])
def test_a_file_of_users_that_is_none(tmp_path: Path, *, checks: bool) -> None:
    """A password in clear in the file of users is refused with the line, by --check-config as well as by a start."""
    (tmp_path / "users").write_text(f"ada:{SECRET}\n")
    (tmp_path / "log").touch()
    flags = ["--log", tmp_path / "log", "--state", tmp_path / "state", "--auth-file", tmp_path / "users"]
    flags += ["--check-config"] if checks else ["--listen", "127.0.0.1:0"]
    done = run("run", *flags)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path / 'users'}:1 is not user:hash")
    assert SECRET not in done.stderr
