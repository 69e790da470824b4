"""Completion in a shell: real bash, zsh and fish complete half-typed commands with the scripts of `completion`."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from exporter.cli import COMMANDS
from exporter.command.completion import SHELLS, script
from exporter.command.parser import grammars
from exporter.config.options import OPTIONS
from tests.program import DEADLINE_SECONDS, environ, installed, run

CASES = [
    ("tas", ["tasklog", "tasks"]),
    ("tasks --fai", ["--failed"]),
    ("tasks --outcome l", ["lost"]),
    ("run --log-form", ["--log-format"]),
    ("run --log-format j", ["json"]),
    ("run --ui f", ["false"]),
    ("check some", ["some file.log", "some.log", "somewhere"]),
    ("tasklog st", ["status"]),
    ("completion z", ["zsh"]),
    ("run --state some", ["somewhere"]),
    ("hash-password x", []),
    ("nothing x", []),
]


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    """A directory with files and a directory whose names begin alike, and the scripts."""
    for name in ("some.log", "some file.log", "other.log"):
        (tmp_path / name).touch()
    (tmp_path / "somewhere").mkdir()
    for shell in SHELLS:
        done = run("completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        (tmp_path / f"script.{shell}").write_text(done.stdout)
    return tmp_path


@pytest.mark.parametrize(("typed", "expected"), CASES)
def test_bash_completes(place: Path, typed: str, expected: list[str]) -> None:
    """Bash offers commands, flags, their values, files and directories where each is allowed."""
    words = ["wok-exporter", *typed.split()]
    script_of_test = """
        source script.bash
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _wok_exporter
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [installed("bash"), "--norc", "-c", script_of_test, "test", *words],
        cwd=place,
        env=environ(),
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_SECONDS,
    )

    found = sorted(done.stdout.split("\n")[:-1])
    is_directory = "--state" in typed
    assert (found if found != [""] else []) == sorted(expected)
    assert not is_directory or found == ["somewhere"]
    assert "not found" not in done.stderr


def test_bash_completes_a_value_after_an_equals_sign(place: Path) -> None:
    """Bash splits --flag=value at the sign, and the value is completed all the same."""
    for words, expected in (
        (["tasks", "--outcome", "=", "fa"], "failure"),
        (["run", "--log-level", "="], "debug\ninfo\nwarning\nerror"),
    ):
        text = 'source script.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _wok_exporter;'
        done = subprocess.run(
            [
                installed("bash"),
                "--norc",
                "-c",
                f'{text} printf "%s\\n" "${{COMPREPLY[@]}}"',
                "t",
                "wok-exporter",
                *words,
            ],
            cwd=place,
            env=environ(),
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE_SECONDS,
        )

        assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize(("typed", "expected"), CASES[:-2])
def test_fish_completes(place: Path, typed: str, expected: list[str]) -> None:
    """Fish offers the same, with a sentence beside each command and flag."""
    done = subprocess.run(
        [installed("fish"), "--no-config", "-c", f"source script.fish; complete -C 'wok-exporter {typed}'"],
        cwd=place,
        env=environ(HOME=str(place)),
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_SECONDS,
    )

    found = sorted(line.split("\t")[0].rstrip("/").replace("\\ ", " ") for line in done.stdout.splitlines())
    if "some" in typed:
        # fish offers directories where a file is expected, to go on from there
        found = [name for name in found if name in expected]
    assert found == sorted(expected)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("tasks --fai", "--failed"),
        ("tasklog st", "status"),
        ("run --log-format=j", "--log-format=json"),
        ("hash-pa", "hash-password"),
        ("check othe", "other.log"),
        ("run --state somew", "somewhere"),
    ],
)
def test_zsh_completes(place: Path, typed: str, expected: str) -> None:
    """In zsh at a terminal, Tab completes what is typed, with the script where zsh looks for it."""
    (place / "functions").mkdir()
    (place / "script.zsh").rename(place / "functions" / "_wok-exporter")
    begin = "fpath=($PWD/functions $fpath); autoload -U compinit; compinit -u -D; PS1='ready> '\n"
    zsh = installed("zsh")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(place)
        os.execve(zsh, ["zsh", "-f", "-i"], {**environ(), "TERM": "xterm", "HOME": str(place)})
    try:
        os.write(terminal, begin.encode())
        assert _read_until(terminal, "ready> ", times=1)
        os.write(terminal, f"wok-exporter {typed}\t".encode())
        said = _read_until(terminal, expected, times=1)
    finally:
        os.close(terminal)
        os.waitpid(process, 0)

    assert expected in said


def _read_until(terminal: int, text: str, *, times: int) -> str:
    """Return what a terminal shows as soon as it has a text so often, or at the deadline."""
    shown = ""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            shown += os.read(terminal, 65536).decode("utf-8", "replace")
        except OSError:
            break
        # zsh draws the completed word by moving the cursor and writing what is new
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\x08\r]", "", shown)
        if plain.count(text) >= times:
            return plain
    return shown


def test_scripts_have_every_flag_of_every_command() -> None:
    """The scripts are made of the parsers: each has the flags of each command, and no sentence breaks its quoting."""
    known = grammars(COMMANDS)

    assert list(known) == list(COMMANDS)
    for name in ("run", "replay", "backfill", "check", "tasks"):
        mine = {option.flag for option in OPTIONS.values() if name in option.commands}
        names = {each for flag in known[name].flags for each in flag.names}
        assert mine | {"--help", "--config"} <= names
    for shell in SHELLS:
        text = script(shell, known)
        for grammar in known.values():
            for flag in grammar.flags:
                assert all(each.lstrip("-") in text for each in flag.names)


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_are_sound(place: Path, shell: str) -> None:
    """Each shell can parse its script, and shellcheck finds no fault in that of bash."""
    done = subprocess.run(
        [installed(shell), "-n", f"script.{shell}"], cwd=place, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    if shell == "bash":
        tool = Path(os.sys.executable).with_name("shellcheck")  # type: ignore[attr-defined]
        checked = subprocess.run(
            [tool, "-s", "bash", "script.bash"], cwd=place, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["taks"], "did you mean tasks?"),
        (["completion", "fsh"], "did you mean fish?"),
        (["tasklog", "stats"], "did you mean status?"),
        (["tasks", "--outcome", "lots"], "did you mean lost?"),
        (["run", "--log-fromat", "json"], "did you mean --log-format?"),
        (["run", "--log-format", "jsn"], "did you mean json?"),
        (["run", "--privacy", "has"], "did you mean hash?"),
        (["backfill", "--sinse", "1d"], "did you mean --since?"),
    ],
)
def test_a_slip_has_a_hint(words: list[str], hint: str) -> None:
    """A command, a flag, an argument or a value that is nearly right is answered with the right one."""
    done = run(*words)

    assert done.returncode == 2
    assert hint in done.stderr
