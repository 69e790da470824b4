"""The command line's grammar: commands, their arguments and flags, and what
help says about them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from exporter import __version__
from exporter.command.completion import Grammar, grammar_of
from exporter.config.options import OPTIONS, Config, add_flags
from exporter.config.values import did_you_mean
from exporter.terminal.text import visible

DESCRIPTION = """\
Turns Wok's user request log into OpenTelemetry traces, log records and Prometheus metrics: how long a
task took or has been running, what else was requested meanwhile, and why it failed."""

EPILOG = """\
examples:
  wok-exporter demo                                watch it work on a simulated Wok
  wok-exporter check /var/lib/wok/user-requests.data
                                                   how much of a log can be parsed; sends nothing
  wok-exporter tasks --failed                      which tasks failed, and why
  wok-exporter trace /plugins/kimchi/vms/web01/clone
                                                   a request, its tasks, and concurrent requests
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 wok-exporter run
                                                   the daemon, sending to a collector on this host

Where to send traces and log records is set by the OTEL_EXPORTER_OTLP_* variables of the OpenTelemetry
specification; everything else by /etc/wok-exporter.toml, WOK_EXPORTER_* variables and flags
(docs/configuration.md)."""


@dataclass(frozen=True)
class Command:
    """A command: `do` runs it and returns the exit code.

    `settings_of` is the command whose options it has. `arguments` adds flags and arguments of its
    own, `usage` shows the arguments in the first line of help. A command that is not
    `is_configured` has no options of the configuration. One that is not `is_loaded` gets the
    defaults: it needs none, or loads its own.
    """

    do: Callable[[Config, argparse.Namespace], int]
    sentence: str
    usage: str = ""
    settings_of: str = ""
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None
    note: str = ""
    is_configured: bool = True
    is_loaded: bool = True


class _Parser(argparse.ArgumentParser):
    """Explains a mistake in one sentence below the usage, with the nearest known word."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and reject what is left over, with the flags of this parser at hand."""
        found, rest = super().parse_known_args(args, namespace)
        flags = [flag for flag in rest if flag.startswith("-")]
        if flags:
            self.reject(flags[0])
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Exit with a sentence that quotes no escape sequence of an argument."""
        if wrong := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            message += did_you_mean(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        super().error(visible(message))

    def reject(self, flag: str) -> NoReturn:
        """Exit because of an unknown flag."""
        name = flag.partition("=")[0]
        known = [string for action in self._actions for string in action.option_strings]
        hint = did_you_mean(name, known)
        if not hint and name.replace("-", "_").strip("_") in OPTIONS:
            hint = f" ({self.prog} does not use this setting)"
        self.error(f"unknown option {name}{hint}")


def parse(commands: Mapping[str, Command], argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of one command; without any, print help. Exits as argparse does."""
    parser = _build(commands)
    if not argv:
        parser.print_help()
        parser.exit()
    first = argv[0]
    if first not in commands and first not in {"-h", "--help", "--version"}:
        if first.startswith("-"):
            parser.error(
                f"{first} comes before the command: write it after, as in wok-exporter run {first} ..."
                if first.lstrip("-").partition("=")[0].replace("-", "_") in {*OPTIONS, "config", "json"}
                else f"unknown option {first}{did_you_mean(first, ['--help', '--version'])}"
            )
        parser.error(f"unknown command {first!r}{did_you_mean(first, commands)}")
    return parser.parse_args(argv)


def grammars(commands: Mapping[str, Command]) -> Mapping[str, Grammar]:
    """Return what each command accepts, for completion in a shell."""
    parser = _build(commands)
    (subparsers,) = (action for action in parser._actions if isinstance(action.choices, dict))  # noqa: SLF001
    assert isinstance(subparsers.choices, dict)
    return {name: grammar_of(sub, commands[name].sentence) for name, sub in subparsers.choices.items()}


def _build(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wok-exporter",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wok-exporter {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, command in commands.items():
        sub = subparsers.add_parser(
            name,
            help=command.sentence,
            description=f"{command.sentence[0].upper()}{command.sentence[1:]}.",
            usage=f"wok-exporter {name}{' [option ...]' if command.is_configured else ''}{command.usage}",
            epilog=command.note,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.arguments(sub)
        if command.is_configured:
            add_flags(sub, command.settings_of or name)
    return parser
