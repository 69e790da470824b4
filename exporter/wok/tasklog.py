"""Decides how to install or remove Wok's plug-in `tasklog`, and reports its state.

The installed plug-in consists of two files: a link from Wok's directory of plug-ins to our folder,
and a configuration file. `Host` contains the facts about the host as plain values. `to_install`,
`to_remove` and `report` use only these, and return steps and sentences. Files that do not belong to
the plug-in are never changed. This module reads and writes no files.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

NAME: Final = "tasklog"

METHODS: Final = {
    "asynctask.py": (
        "__init__(self, target_uri, fn, opaque=None, kill_cb=None)",
        "_run_helper(self, opaque, cb)",
        "_status_cb(self, message, success=None, exception=None)",
        "_log(self, code, status, exception=None)",
        "kill(self)",
    ),
    "reqlogger.py": ("__init__(self, message, error, id=None, **kwargs)", "log(self)"),
}
"""The methods that the plug-in wraps, by module. If one of them differs, the
plug-in does nothing.
"""

WORKS: Final = "starts and ends of tasks are logged with their ids"
OWN: Final = re.compile(rb"^tasklog: (.{1,400})$")
MARK: Final = re.compile(rb"^\[([^\]]{1,40})\] ENGINE Bus (STARTED|EXITED)$")
OFF: Final = ("", "0", "false", "no", "none", "off")

RESTART: Final = (
    "Restart wokd to make this take effect (systemctl restart wokd). Tasks that are running then are lost:"
    " choose the moment."
)


class TasklogError(Exception):
    """An operation is rejected; the text is a sentence for the administrator."""


class Host(NamedTuple):
    """The facts about a host. Paths are as wokd sees them, without the root.

    `link` is the target of a symbolic link, "" if there is nothing, None if there is something
    else. `conf` is the text of the configuration, None without one. `seen` comes from
    wok-error.log.
    """

    wokd: Path
    release: str
    library: Path
    unknown: str
    source: Path
    source_problem: str
    plugin: Path
    link: str | None
    conf_file: Path
    conf: str | None
    default_conf: str
    log_file: Path
    log_problem: str
    seen: Seen


class Seen(NamedTuple):
    """The plug-in's last sentence about itself in wok-error.log, and what wokd did after it.

    `since` is the time of the start of wokd that it belongs to. `failures` is the number of kinds
    of record that the plug-in could not log.
    """

    sentence: str = ""
    since: str = ""
    is_ended: bool = False
    is_restarted: bool = False
    failures: int = 0


class Step(NamedTuple):
    """A change of one file: `link`, `create` or `delete`; `content` is the target or the text."""

    do: str
    path: Path
    content: str = ""


class Plan(NamedTuple):
    """Changes to make and sentences to print. `is_wrong`: the administrator has something left to
    do.
    """

    steps: Sequence[Step]
    sentences: Sequence[str]
    is_wrong: bool = False


def to_install(host: Host) -> Plan:
    """Return the steps that install the plug-in; raise TasklogError if it does not support this
    host.
    """
    if host.unknown:
        raise TasklogError(f"{host.unknown} The plug-in knows Wok 2.3.0 to 3.0.0 and master of 2020.")
    if host.source_problem:
        raise TasklogError(host.source_problem)
    _refuse_foreign(host)
    steps: list[Step] = []
    sentences: list[str] = []
    if host.link:
        sentences.append(f"{host.plugin} is linked to {host.source} already.")
    else:
        steps.append(Step("link", host.plugin, str(host.source)))
        sentences.append(f"Linked {host.plugin} to {host.source}.")
    if host.conf is None:
        steps.append(Step("create", host.conf_file, host.default_conf))
        sentences.append(f"Created {host.conf_file}.")
    elif not is_enabled(host.conf):
        sentences.append(
            f"{host.conf_file} is there and disables the plug-in. Set enable = True in it, or enable tasklog in Wok's settings."
        )
        return Plan(steps, sentences, is_wrong=True)
    else:
        sentences.append(f"{host.conf_file} enables the plug-in already.")
    if steps or report(host).is_wrong:
        sentences.append(RESTART)
    return Plan(steps, sentences)


def to_remove(host: Host) -> Plan:
    """Return the steps that remove the plug-in; raise TasklogError for files that are not ours."""
    _refuse_foreign(host)
    steps: list[Step] = []
    sentences: list[str] = []
    if host.link:
        steps.append(Step("delete", host.plugin))
        sentences.append(f"Removed the link {host.plugin}.")
    if host.conf is not None:
        steps.append(Step("delete", host.conf_file))
        sentences.append(f"Removed {host.conf_file}.")
    if steps:
        sentences.append(RESTART)
    else:
        sentences.append("The plug-in is not installed: nothing to remove.")
    return Plan(steps, sentences)


def report(host: Host) -> Plan:
    """Return the state of the plug-in on this host; wrong unless it is running."""
    is_linked = host.link == str(host.source)
    if is_linked:
        linked = f"yes: {host.plugin} -> {host.link}"
        if host.source_problem:
            linked = f"no: {host.plugin} leads to {host.link}, which is not usable. {host.source_problem}"
            is_linked = False
    elif host.link:
        linked = f"no: {host.plugin} leads to {host.link}, which is not the plug-in of wok-exporter"
    elif host.link is None:
        linked = f"no: {host.plugin} is not a link, so it is not the plug-in of wok-exporter"
    else:
        linked = f"no: there is no {host.plugin}"
    if host.conf is None:
        configured, is_configured = f"no: there is no {host.conf_file}", False
    else:
        is_configured = is_enabled(host.conf)
        configured = f"yes: {host.conf_file}" if is_configured else f"no: {host.conf_file} disables it"
    is_at_work, at_work = _at_work(host)
    sentences = [
        f"Wok         {host.release or 'of an unknown release'} in {host.library / 'wok'} (from {host.wokd})",
        f"linked      {linked}",
        f"configured  {configured}",
        f"at work     {at_work}",
    ]
    if host.unknown:
        sentences.append(f"problem     {host.unknown}")
    if host.seen.failures:
        sentences.append(
            f"problem     {host.seen.failures} kinds of record could not be logged, see {host.log_file}"
        )
    is_missing = not (is_linked and is_configured)
    if is_missing and not host.unknown and host.link in ("", str(host.source)):
        sentences.append("to do       wok-exporter tasklog install")
    is_wrong = is_missing or not is_at_work or bool(host.unknown) or bool(host.seen.failures)
    return Plan((), sentences, is_wrong)


def _at_work(host: Host) -> tuple[bool, str]:
    seen = host.seen
    if host.log_problem:
        return False, f"unknown: {host.log_problem}"
    if not seen.sentence:
        return False, f"no: {host.log_file} has no line of the plug-in. Has wokd been restarted?"
    if seen.is_restarted:
        return False, "no: wokd has been started again since, without the plug-in"
    if seen.is_ended:
        return False, "no: wokd has stopped"
    if seen.sentence != WORKS:
        return False, f"no: {seen.sentence}"
    return True, f"yes{f', since wokd was started at {seen.since}' if seen.since else ''} ({host.log_file})"


def _refuse_foreign(host: Host) -> None:
    if host.link is None:
        raise TasklogError(
            f"{host.plugin} is not a link: another program or person has put it there. Move it away, then run this again."
        )
    if host.link not in ("", str(host.source)):
        raise TasklogError(
            f"{host.plugin} is a link to {host.link}, not to {host.source}. Remove it, or name its folder with --source."
        )
    if host.conf is not None and not is_ours(host.conf):
        raise TasklogError(
            f"{host.conf_file} is not the configuration of this plug-in. Move it away, then run this again."
        )


def is_ours(conf: str) -> bool:
    """Return whether a configuration belongs to the plug-in, also after a
    change in Wok's settings.
    """
    section = _section(conf)
    return section is not None and set(section) == {"enable", "uri"} and "/plugins/tasklog" in section["uri"]


def is_enabled(conf: str) -> bool:
    """Return whether a configuration enables the plug-in. The plug-in reads it in the same way."""
    value = (_section(conf) or {}).get("enable", "")
    return value.strip().strip("'\"").lower() not in OFF


def _section(conf: str) -> dict[str, str] | None:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(conf)
    except configparser.Error:
        return None
    return dict(parser["wok"]) if parser.sections() == ["wok"] else None


def seen_in(lines: Iterable[bytes]) -> Seen:
    """Return the state of the plug-in from lines of wok-error.log.

    Its own line precedes the line of wokd's start.
    """
    seen = Seen()
    for line in lines:
        text = line.rstrip(b"\r\n")
        if own := OWN.match(text):
            sentence = own[1].decode("utf-8", "replace")
            if sentence.startswith("could not log "):
                seen = seen._replace(failures=seen.failures + 1)
            else:
                seen = Seen(sentence)
        elif mark := MARK.match(text):
            if mark[2] == b"EXITED":
                seen = seen._replace(is_ended=True)
            elif seen.since or seen.is_ended:
                seen = seen._replace(is_restarted=True)
            else:
                seen = seen._replace(since=mark[1].decode("ascii", "replace"))
    return seen


def unknown(package: Path, sources: Mapping[str, str]) -> str:
    """Return how Wok's modules differ from the releases that the plug-in supports, or nothing."""
    for name, methods in METHODS.items():
        text = "".join(sources[name].split())
        for method in methods:
            if "def" + "".join(f"{method}:".split()) not in text:
                return f"this Wok is not known: {package / name} has no method {method}."
    return ""
