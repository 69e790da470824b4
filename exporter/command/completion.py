"""`completion`: a script that lets bash, zsh or fish complete command lines of this program.

The scripts are made from the parsers of the commands, so they have exactly the flags that the
commands accept. They contain everything: pressing Tab starts no program.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from exporter.config.options import OPTIONS

_DIRECTORY = "DIRECTORY"


class Flag(NamedTuple):
    """A flag: its names, its sentence, and what follows it.

    `values` are the only ones allowed (empty: any). `is_path` and `is_directory` mean that a path
    follows, `has_value` that anything does.
    """

    names: Sequence[str]
    sentence: str
    has_value: bool
    values: Sequence[str] = ()
    is_path: bool = False
    is_directory: bool = False


class Grammar(NamedTuple):
    """What follows a command: flags, words (such as `install`), and whether files do."""

    sentence: str
    flags: Sequence[Flag]
    words: Sequence[str]
    has_files: bool


def grammar_of(parser: argparse.ArgumentParser, sentence: str) -> Grammar:
    """Return what a command accepts, as its parser says."""
    flags: list[Flag] = []
    words: list[str] = []
    has_files = False
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way
        if action.help == argparse.SUPPRESS:
            continue
        option = OPTIONS.get(action.dest) if action.option_strings else None
        values = [str(value) for value in action.choices or (option.words if option is not None else ())]
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if action.option_strings:
            has_value = action.nargs != 0
            is_directory = has_value and metavar == _DIRECTORY
            is_path = has_value and (is_directory or metavar in ("FILE", "PATHS") or action.type is Path)
            names = action.option_strings
            flags.append(Flag(names, _plain(action.help), has_value, values, is_path, is_directory))
        elif values:
            words += values
        else:
            has_files = has_files or action.type is Path
    return Grammar(sentence, flags, words, has_files)


def script(shell: str, commands: Mapping[str, Grammar]) -> str:
    """Return the script for a shell, one of `SHELLS`."""
    return SHELLS[shell](commands)


def _plain(text: str | None) -> str:
    """Return the first part of a help text, without what only a page of help needs."""
    plain = re.sub(r" \[[^\]]*WOK_EXPORTER_[^\]]*\]$", "", (text or "").replace("%%", "%"))
    return re.split(r"; |\. ", plain, maxsplit=1)[0]


# bash

_BASH = """\
# bash completion for wok-exporter, written by `wok-exporter completion bash`
_wok_exporter() {
    local cur prev command="" flags="" words="" paths="" directories="" values="" others="" files=""
    COMPREPLY=()
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=""
    if ((COMP_CWORD > 0)); then prev=${COMP_WORDS[COMP_CWORD-1]}; fi
    # bash splits --flag=value at the equals sign
    if [[ $cur == "=" ]]; then
        cur=""
    elif [[ $prev == "=" ]] && ((COMP_CWORD > 1)); then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    if ((COMP_CWORD > 1)); then command=${COMP_WORDS[1]}; fi
    case $command in
        "") words="@commands@"; flags="--help --version" ;;
@cases@
        *) return ;;
    esac
    if [[ -n $command && " $directories " == *" $prev "* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
    elif [[ -n $command && " $paths " == *" $prev "* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    elif [[ -n $command && " $others " == *" $prev "* ]]; then
        case $command:$prev in
@values@
        esac
        mapfile -t COMPREPLY < <(compgen -W "$values" -- "$cur")
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    elif [[ -n $files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -F _wok_exporter wok-exporter
"""


def _bash(commands: Mapping[str, Grammar]) -> str:
    cases, values = [], []
    for name, grammar in commands.items():
        parts = {
            "flags": _names(grammar, lambda _: True),
            "directories": _names(grammar, lambda flag: flag.is_directory),
            "paths": _names(grammar, lambda flag: flag.is_path and not flag.is_directory),
            "others": _names(grammar, lambda flag: flag.has_value and not flag.is_path),
            "words": " ".join(grammar.words),
            "files": "yes" if grammar.has_files else "",
        }
        given = "; ".join(f'{part}="{text}"' for part, text in parts.items() if text)
        cases.append(f"        {name}) {given} ;;")
        values += [
            f'            {name}:{flag_name}) values="{" ".join(flag.values)}" ;;'
            for flag in grammar.flags
            if flag.values
            for flag_name in flag.names
        ]
    return (
        _BASH.replace("@commands@", " ".join(commands))
        .replace("@cases@", "\n".join(cases))
        .replace("@values@", "\n".join(values))
    )


def _names(grammar: Grammar, is_one: Callable[[Flag], bool]) -> str:
    return " ".join(name for flag in grammar.flags if is_one(flag) for name in flag.names)


# zsh


def _zsh(commands: Mapping[str, Grammar]) -> str:
    lines = [
        "#compdef wok-exporter",
        "# zsh completion for wok-exporter, written by `wok-exporter completion zsh`",
        "_wok_exporter() {",
        "    local context state state_descr line",
        "    typeset -A opt_args",
        "    _arguments -C '(- *)--help[show help]' '(- *)--version[show the version]' \\",
        "        '1: :->command' '*:: :->rest'",
        "    case $state in",
        "    command)",
        "        local -a commands=(",
        *(
            f"            {_quoted(f'{name}:{_zsh_text(grammar.sentence)}')}"
            for name, grammar in commands.items()
        ),
        "        )",
        "        _describe command commands ;;",
        "    rest)",
        "        case $words[1] in",
    ]
    for name, grammar in commands.items():
        specs = [spec for flag in grammar.flags for spec in _zsh_flag(flag)]
        if grammar.words:
            specs.append(_quoted(f"1:word:({' '.join(grammar.words)})"))
        if grammar.has_files:
            specs.append(_quoted("*:file:_files"))
        lines += [f"        {name})", "            _arguments \\"]
        lines += [f"                {spec} \\" for spec in specs[:-1]]
        lines += [f"                {specs[-1]} ;;"]
    lines += [
        "        esac ;;",
        "    esac",
        "}",
        # loaded by compinit, the file is the body of the function; sourced, it defines it
        'if [[ $funcstack[1] == _wok_exporter || $funcstack[1] == _wok-exporter ]]; then _wok_exporter "$@"; else',
        "    compdef _wok_exporter wok-exporter",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def _zsh_flag(flag: Flag) -> list[str]:
    what = ""
    if flag.has_value:
        action = f"({' '.join(flag.values)})" if flag.values else " "
        action = "_files -/" if flag.is_directory else "_files" if flag.is_path else action
        what = f":value:{action}"
    return [
        _quoted(
            f"{name}{'=' if flag.has_value and name.startswith('--') else ''}[{_zsh_text(flag.sentence)}]{what}"
        )
        for name in flag.names
    ]


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# fish


def _fish(commands: Mapping[str, Grammar]) -> str:
    lines = [
        "# fish completion for wok-exporter, written by `wok-exporter completion fish`",
        "complete -c wok-exporter -f",
        "complete -c wok-exporter -n __fish_use_subcommand -l help -d 'show help'",
        "complete -c wok-exporter -n __fish_use_subcommand -l version -d 'show the version'",
    ]
    for name, grammar in commands.items():
        lines.append(
            f"complete -c wok-exporter -n __fish_use_subcommand -a {name} -d {_fish_quoted(grammar.sentence)}"
        )
    for name, grammar in commands.items():
        head = f"complete -c wok-exporter -n '__fish_seen_subcommand_from {name}'"
        for flag in grammar.flags:
            named = [f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in flag.names]
            value = " -r" if flag.has_value else ""
            if flag.is_directory:
                value += " -a '(__fish_complete_directories)'"
            elif flag.is_path:
                value += " -F"
            elif flag.values:
                value += f" -a {_fish_quoted(' '.join(flag.values))}"
            lines.append(f"{head} {' '.join(named)}{value} -d {_fish_quoted(flag.sentence)}")
        if grammar.words:
            lines.append(f"{head} -a {_fish_quoted(' '.join(grammar.words))}")
        if grammar.has_files:
            lines.append(f"{head} -F")
    return "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Mapping[str, Callable[[Mapping[str, Grammar]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
