"""`wok-exporter tasklog`: put Wok's plug-in `tasklog` in its place, report on it, or remove it.

The plug-in makes Wok log the start and the end of every task with its id (docs/tasklog.md). `look`
reads what a host has, exporter.wok.tasklog decides, `carry_out` does the steps. Nothing of Wok is
changed, and wokd is never restarted: a restart loses running tasks, so the administrator chooses
the moment.
"""

from __future__ import annotations

import argparse
import configparser
import errno
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import BinaryIO, Final, TextIO

import exporter
from exporter.wok.tasklog import (
    METHODS,
    NAME,
    Host,
    Plan,
    Seen,
    TasklogError,
    report,
    seen_in,
    to_install,
    to_remove,
    unknown,
)

DONE, WRONG, REFUSED = 0, 1, 2

SHARED: Final = Path("/usr/share/wok-exporter/tasklog")
"""Where the packages of wok-exporter put the plug-in."""
PROGRAMS: Final = (Path("/usr/bin/wokd"), Path("/usr/local/bin/wokd"), Path("/usr/sbin/wokd"))
CONFIGURATIONS: Final = Path("/etc/wok/plugins.d")
LOGS: Final = Path("/var/log/wok")
FILES: Final = ("__init__.py", "control.py", "i18n.py", "records.py", "switch.py", f"{NAME}.conf")
"""All files of the plug-in. wokd runs or reads each of them as root."""
FILE_BYTES: Final = 1 << 20
LINE_BYTES: Final = 1 << 16

LIBRARY: Final = re.compile(r"^sys\.path\.insert\(1, (['\"])(/[^'\"\n]+)\1\)\s*$", re.MULTILINE)
"""The line of every wokd from 2.3.0 to master that says where its package is."""
RELEASE: Final = re.compile(r"^__version__ = ['\"]([^'\"\n]{1,40})['\"]", re.MULTILINE)
CONFIGURED_DIRECTORY: Final = re.compile(r"self\.conf_dir = ['\"](/[^'\"\n]*/plugins\.d)['\"]")
LOG_DIRECTORY: Final = re.compile(r"self\.log_dir = ['\"](/[^'\"\n]+)['\"]")

HELP: Final = """\
actions:
  install   link the plug-in into the installed Wok and create its configuration
  status    is it linked, configured, and at work? exit code 0 if it is, else 1
  remove    remove the link and the configuration

None of them changes a file of Wok or restarts wokd. docs/tasklog.md says what the plug-in writes,
deploy/wok/README.md what it does to Wok.

examples:
  sudo wok-exporter tasklog install && sudo systemctl restart wokd
  wok-exporter tasklog status
  sudo wok-exporter tasklog remove
  wok-exporter tasklog status --wokd /opt/wok/bin/wokd"""


def look(root: Path, wokd: Path | None, source: Path | None) -> Host:
    """Read what the host below this root has; raise TasklogError if there is no Wok that this
    program knows.
    """
    program = _program(root, wokd)
    found = LIBRARY.search(_text(root, program))
    if found is None:
        raise TasklogError(
            f"{program} is not the wokd of a known Wok: it has no line sys.path.insert(1, '...')."
            " Name the program of an installed Wok with --wokd PATH."
        )
    library = Path(found[2])
    package = library / "wok"
    if not (_below(root, package / "plugins").is_dir() and _below(root, package / "asynctask.py").is_file()):
        raise TasklogError(
            f"there is no Wok in {package}, where {program} looks for it. Wok before 2.3.0 has no plug-ins of this kind."
        )
    config = _text(root, package / "config.py")
    folder = _folder(root, source)
    plugin = package / "plugins" / NAME
    conf_file = Path(_first(CONFIGURED_DIRECTORY, config) or CONFIGURATIONS) / f"{NAME}.conf"
    log_file = _log_directory(root, conf_file.parent.parent / "wok.conf", config) / "wok-error.log"
    seen, log_problem = _seen(root, log_file)
    conf = _below(root, conf_file)
    problem = _problem_of(root, folder)
    return Host(
        wokd=program,
        release=_first(RELEASE, config),
        library=library,
        unknown=unknown(package, {name: _text(root, package / name) for name in METHODS}),
        source=folder,
        source_problem=problem,
        plugin=plugin,
        link=_link(_below(root, plugin)),
        conf_file=conf_file,
        conf=_text(root, conf_file) if os.path.lexists(conf) else None,
        default_conf="" if problem else _text(root, folder / f"{NAME}.conf"),
        log_file=log_file,
        log_problem=log_problem,
        seen=seen,
    )


def carry_out(plan: Plan, root: Path) -> None:
    """Do the steps of a plan in their order; raise TasklogError at the first that fails."""
    for step in plan.steps:
        path = _below(root, step.path)
        try:
            if step.do == "link":
                path.symlink_to(step.content)
            elif step.do == "create":
                path.parent.mkdir(parents=True, exist_ok=True)
                # Never over a file that has appeared since we looked.
                with path.open("x", encoding="utf-8") as file:
                    file.write(step.content)
            else:
                path.unlink()
        except OSError as error:
            hint = " Run this as root." if isinstance(error, PermissionError) else ""
            raise TasklogError(f"cannot {step.do} {step.path}: {error.strerror}.{hint}") from error


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to(path.anchor)


def _program(root: Path, wokd: Path | None) -> Path:
    if wokd is not None:
        return wokd.absolute()
    for path in PROGRAMS:
        if _below(root, path).is_file():
            return path
    raise TasklogError(
        f"cannot find Wok: there is no {', '.join(map(str, PROGRAMS))}. Name its program with --wokd PATH."
    )


def _open(path: Path) -> BinaryIO:
    """Open a file, but never wait for the writer of a FIFO."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if path.is_fifo():
        raise OSError(errno.EINVAL, "It is a FIFO, not a file")
    return path.open("rb")


def _text(root: Path, path: Path) -> str:
    try:
        with _open(_below(root, path)) as file:
            return file.read(FILE_BYTES).decode("utf-8", "replace")
    except OSError as error:
        hint = " Run this as root." if isinstance(error, PermissionError) else ""
        raise TasklogError(f"cannot read {path}: {error.strerror}.{hint}") from error


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _folder(root: Path, source: Path | None) -> Path:
    if source is not None:
        return source.absolute()
    checkout = Path(exporter.__file__).parents[1] / "deploy" / "wok" / NAME
    if root == Path("/") and not SHARED.exists() and checkout.is_dir():
        return checkout
    return SHARED


def _problem_of(root: Path, folder: Path) -> str:
    """Return why wokd should not load this folder: it runs as root."""
    for path in (folder, *(folder / name for name in FILES)):
        try:
            mode = _below(root, path).stat().st_mode
        except OSError as error:
            return (
                f"cannot read the plug-in's {path}: {error.strerror}. Install the package of wok-exporter,"
                " or name the folder with --source DIR (deploy/wok/tasklog of a checkout)."
            )
        if mode & stat.S_IWOTH:
            return (
                f"everybody can change {path}, and wokd would run it as root. Remove that right (chmod o-w)."
            )
    return ""


def _link(path: Path) -> str | None:
    if path.is_symlink():
        return str(path.readlink())
    return None if os.path.lexists(path) else ""


def _log_directory(root: Path, wok_conf: Path, config: str) -> Path:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(_text(root, wok_conf))
        return Path(parser.get("logging", "log_dir"))
    except (TasklogError, configparser.Error):
        return Path(_first(LOG_DIRECTORY, config) or LOGS)


def _seen(root: Path, log_file: Path) -> tuple[Seen, str]:
    try:
        with _open(_below(root, log_file)) as file:
            return seen_in(iter(lambda: file.readline(LINE_BYTES), b"")), ""
    except OSError as error:
        return Seen(), f"cannot read {log_file}: {error.strerror}"


# --- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and its options to a parser."""
    parser.add_argument("action", choices=("install", "status", "remove"), metavar="ACTION", help="see below")
    parser.add_argument(
        "--wokd",
        type=Path,
        metavar="PATH",
        help="the program of the installed Wok (default: /usr/bin/wokd, ...)",
    )
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help=f"the folder of the plug-in (default: {SHARED})"
    )
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="the root of another system (default: /)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Do what was asked and return the exit code."""
    out, err = out or sys.stdout, err or sys.stderr
    try:
        host = look(args.root, args.wokd, args.source)
        plan = {"install": to_install, "status": report, "remove": to_remove}[args.action](host)
        carry_out(plan, args.root)
    except TasklogError as error:
        print(f"error: {error}", file=err)
        return REFUSED
    if args.json:
        json.dump(
            {
                "wok": host.release,
                "plugin": str(host.plugin),
                "configuration": str(host.conf_file),
                "done": [f"{step.do} {step.path}" for step in plan.steps],
                "text": list(plan.sentences),
                "ok": not plan.is_wrong,
            },
            out,
            indent=2,
        )
        print(file=out)
    else:
        print(*plan.sentences, sep="\n", file=out)
    return WRONG if plan.is_wrong else DONE
