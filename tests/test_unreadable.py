"""Paths that nobody can read: every one from options, the environment and arguments, in every command."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.cli import main
from exporter.config.options import OPTIONS
from tests.program import environ, request_line, wait_until

SECONDS_MAX = 20
PR_CAPBSET_DROP = 24
STOP_SECONDS = 0.6
PATHS = (
    "log",
    "wok_error_log",
    "wok_access_log",
    "messages",
    "state",
    "tls_certificate",
    "tls_key",
    "auth_file",
)
VARIABLES = (
    "WOK_EXPORTER_CONFIG",
    "HOME",
    "TMPDIR",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY",
)
KINDS = (
    "missing",
    "directory",
    "fifo",
    "socket",
    "unreadable",
    "in a closed directory",
    "below a file",
    "dangling link",
    "loop of links",
    "long name",
    "long path",
    "binary",
    "null device",
)


class Done(NamedTuple):
    code: int
    out: str
    err: str


def bad_path(folder: Path, kind: str) -> Path:
    """Return a path of a kind below a folder, made where there is something to make."""
    path = folder / kind.replace(" ", "-")
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        case "unreadable":
            path.write_text("x")
            path.chmod(0)
        case "in a closed directory":
            path.mkdir()
            (path / "file").write_text("x")
            path.chmod(0)
            return path / "file"
        case "below a file":
            path.write_text("x")
            return path / "file"
        case "dangling link":
            path.symlink_to("nowhere")
        case "loop of links":
            path.symlink_to(path)
        case "long name":
            return folder / ("n" * 300)
        case "long path":
            return folder.joinpath(*["d" * 200] * 30)
        case "binary":
            path.write_bytes(bytes(range(256)) * 16)
        case "null device":
            return Path(os.devnull)
    return path


@pytest.fixture(name="places", scope="module")
def _places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A path of every kind, and a log."""
    folder = tmp_path_factory.mktemp("p")
    places = {kind: bad_path(folder, kind) for kind in KINDS}
    log = folder / "user-requests.data"
    log.write_bytes(request_line(1_760_000_000, "ada"))
    return {**places, "log": log}


def let_permissions_count() -> None:
    """Take CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from this process, which root has; see capabilities(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(head, sets) == 0
    for capability in (1, 2):
        sets[0] &= ~(1 << capability)
        # what is not in the bounding set does not come back with the next program; others than root have none
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    assert libc.capset(head, sets) == 0


def stop_when_started(err: Path) -> None:
    """Ask this process to stop, some turns after its daemon has said what it reads."""
    while "; state in " not in err.read_text("utf-8", "replace"):
        time.sleep(0.05)
    time.sleep(STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def without_rights(arguments: list[str], variables: Mapping[str, str], folder: Path) -> Done:
    """Run a command in a child without rights, which is asked to stop when it is at work, and killed after twenty seconds."""
    out, err = folder / "out", folder / "err"
    out.touch()
    err.touch()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC), number)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8")
            sys.stderr = os.fdopen(2, "w", encoding="utf-8")
            let_permissions_count()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS_MAX)
            if "run" in arguments and "--check-config" not in arguments:
                threading.Thread(target=stop_when_started, args=(err,), daemon=True).start()
            os.environ.clear()
            os.environ.update(variables)
            import tempfile  # noqa: PLC0415

            tempfile.tempdir = None  # it is remembered, and would not be looked for again
            code = main(arguments, variables)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 98
        except BaseException:  # noqa: BLE001
            import traceback  # noqa: PLC0415

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    for made in err.parent.parent.glob("p*/missing"):
        shutil.rmtree(made)  # a state
    code = os.waitstatus_to_exitcode(status)
    return Done(code, out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace"))


def proved(done: Done) -> None:
    """What every command owes its caller: an exit code of the documented ones, and sentences."""
    assert done.code in (0, 1, 2), done
    assert "Traceback" not in done.err + done.out
    assert "internal error" not in done.err
    assert len(done.err.splitlines()) <= 12
    if done.code == 2:
        assert re.search(r"^(usage:|error: )", done.err, re.MULTILINE), done


COMMANDS: dict[str, list[str]] = {
    "check": ["check", "FILE"],
    "tasks of files": ["tasks", "FILE"],
    "tasks": ["tasks"],
    "trace": ["trace", "x", "--file", "FILE"],
    "text": ["text", "FILE"],
    "replay": ["replay", "FILE", "--give-up-after", "0s"],
    "check-config": ["run", "--check-config", "--log", "LOG"],
    "doctor": ["doctor"],
    "doctor for programs": ["doctor", "--json", "--environment-file", "FILE"],
}


@given(
    st.sampled_from(sorted(COMMANDS)),
    st.dictionaries(st.sampled_from([*PATHS, "FILE"]), st.sampled_from(KINDS), max_size=2),
    st.dictionaries(st.sampled_from(VARIABLES), st.sampled_from(KINDS), max_size=2),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_path_in_any_command(
    places: dict[str, Path],
    tmp_path: Path,
    command: str,
    options: dict[str, str],
    variables: dict[str, str],
) -> None:
    """Whatever is wrong with the paths that a command is given, it ends with a documented code and a sentence."""
    words = [
        str(places[options["FILE"]] if "FILE" in options else places["log"])
        if word == "FILE"
        else str(places["log"])
        if word == "LOG"
        else word
        for word in COMMANDS[command]
    ]
    used = {"trace": "tasks", "doctor": "run"}.get(words[0], words[0])
    for key, kind in options.items():
        if key != "FILE" and used in OPTIONS[key].commands and f"--{key}" not in words:
            words += [OPTIONS[key].flag, str(places[kind])]
    env = environ(OTEL_EXPORTER_OTLP_ENDPOINT="https://127.0.0.1:1", WOK_EXPORTER_INSTANCE="x")
    env = {name: value for name, value in env.items() if name != "HOME"}
    for name, kind in variables.items():
        env[name] = str(places[kind])

    proved(without_rights(words, env, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["log", "wok_error_log", "state"])
def test_any_path_of_a_daemon(places: dict[str, Path], tmp_path: Path, key: str, kind: str) -> None:
    """A daemon with such a path either refuses to start, with a sentence, or runs until it is asked to stop."""
    paths = {"log": places["log"], "wok_error_log": "off", "state": tmp_path / "state"}
    paths[key] = places[kind]
    if (key, kind) == ("state", "directory"):
        paths[key] = places[kind] / "new"
    flags = [word for name, value in paths.items() for word in (OPTIONS[name].flag, str(value))]
    done = without_rights(["run", *flags, "--listen", "off", "--instance", "x"], environ(), tmp_path)

    proved(done)
    assert done.code in (0, 2)
    assert (done.code == 0) is ("stopped" in done.err)


def test_any_path_in_a_reload(places: dict[str, Path], tmp_path: Path) -> None:
    """Whatever path a configuration names after a start, a reload is rejected, or done, with a sentence; the daemon
    goes on, and takes a good configuration afterwards.
    """
    settings = tmp_path / "wok-exporter.toml"
    log = f'log = "{places["log"]}"\n'
    good = f'{log}state = "{tmp_path}/state"\nlisten = "off"\ninstance = "x"\n'
    settings.write_text(good)
    said = tmp_path / "said"
    with said.open("wb") as stderr:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "exporter", "run", "--config", str(settings)],
            env=environ(),
            stderr=stderr,
            preexec_fn=let_permissions_count,  # noqa: PLW1509
        )
    try:
        wait_until(lambda: "backlog read" in said.read_text())
        for number, (key, kind) in enumerate((key, kind) for key in PATHS for kind in KINDS):
            path = str(places[kind]).replace("\\", "\\\\")
            base = good.replace(log, "") if key == "log" else good
            base = base.replace(f'state = "{tmp_path}/state"\n', "") if key == "state" else base
            settings.write_text(f'{base}{key} = "{path}"\n')
            daemon.send_signal(signal.SIGHUP)
            wait_until(lambda number=number: ends_of_reloads(said) > number or daemon.poll() is not None)  # type: ignore[misc]
            assert daemon.poll() is None, (key, kind, said.read_text()[-2000:])
        settings.write_text(good)
        count = said.read_text().count("reloaded; changed")
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: said.read_text().count("reloaded; changed") > count)
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(SECONDS_MAX)
    finally:
        daemon.kill()
        daemon.wait()

    assert code == 0
    assert "Traceback" not in said.read_text()


def ends_of_reloads(said: Path) -> int:
    text = said.read_text()
    return text.count("reload rejected;") + text.count("reloaded; changed")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("binary", "null device")])
@pytest.mark.parametrize("key", ["tls_certificate", "tls_key", "auth_file", "messages"])
def test_a_path_that_refuses_a_configuration(
    places: dict[str, Path], tmp_path: Path, key: str, kind: str
) -> None:
    """A file that the daemon needs and cannot read is an error that names the option, the path and a remedy."""
    if (key, kind) == ("messages", "directory"):
        return  # a directory may contain tables
    flags = ["--log", str(places["log"]), OPTIONS[key].flag, str(places[kind])]
    if key == "tls_key":
        flags += ["--tls-certificate", str(places["log"])]
    done = without_rights(["run", "--check-config", "--instance", "x", *flags], environ(), tmp_path)

    assert (done.code, done.out) == (2, "")
    assert f"error: {OPTIONS[key].flag}: {places[kind]} " in done.err


def test_a_directory_of_the_log_that_may_not_be_entered(tmp_path: Path) -> None:
    """With log = auto, a /var/lib/wok that may not be entered is named as the place of the log: the daemon then says
    that it may not read it, instead of following the log of an older Wok, or failing.
    """
    shut, old = tmp_path / "var/lib/wok", tmp_path / "var/log/wok"
    shut.mkdir(parents=True)
    old.mkdir(parents=True)
    (old / "wok-req.log").touch()
    shut.chmod(0)
    script = (
        "import sys, pathlib; from exporter.config.config import load;"
        "print(load({'instance': 'x'}, {}, 'run', root=pathlib.Path(sys.argv[1])).log)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=let_permissions_count,
    )
    shut.chmod(0o700)

    assert (done.stdout, done.stderr) == (f"{shut}/user-requests.data\n", "")


def test_output_that_cannot_be_written(places: dict[str, Path], tmp_path: Path) -> None:
    """A full disk behind stdout is a sentence and exit code 2, and a closed stdout is no error."""
    base = [sys.executable, "-m", "exporter", "text", str(places["log"])]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(base, stdout=full, stderr=subprocess.PIPE, env=environ(), check=False)
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *base], capture_output=True, env=environ(), check=False
    )

    assert done.returncode == 2
    assert done.stderr.startswith(b"error: No space left on device")
    assert (closed.returncode, closed.stderr) == (0, b"")
