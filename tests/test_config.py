"""The one configuration, its table of options, and the page that is made from it."""

from __future__ import annotations

import argparse
import os
import re
import socket
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.config import ConfigError, load
from exporter.config.effective import effective
from exporter.config.environment_file import parse
from exporter.config.options import OPTIONS, Config, add_flags
from exporter.config.reference import configuration_page
from exporter.config.values import Address
from exporter.records import NANOS

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
MACHINE = "5b6fd5f1e5a94f7cb1c4e1f0a2d3c4b5"


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Path:
    """Return the root of a host that has a machine id and nothing else."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text(MACHINE + "\n")
    return tmp_path


def mistakes(
    host: Path, flags: Mapping[str, str | None], environ: Mapping[str, str], command: str = "run"
) -> list[str]:
    """Return the mistakes of a configuration that has some."""
    with pytest.raises(ConfigError) as caught:
        load(flags, environ, command, root=host)
    return caught.value.mistakes


def attempt(flags: Mapping[str, str | None], environ: Mapping[str, str], host: Path) -> list[str]:
    """Return the mistakes of a configuration, which may have none."""
    try:
        load(flags, environ, "run", root=host)
    except ConfigError as e:
        return e.mistakes
    return []


def test_the_defaults(host: Path) -> None:
    """Without anything said, everything is set, and set for a Wok beside us."""
    config = load({}, {}, "run", root=host)

    expected = Config(
        log=host / "var/lib/wok/user-requests.data",
        wok_error_log=None,
        wok_access_log=None,
        olddir=None,
        timezone="",
        start_at=timedelta(hours=24),
        messages=None,
        apps=(),
        poll_interval=timedelta(seconds=0.25),
        task_expiry=timedelta(hours=24),
        line_bytes_max=2**20,
        state=Path("/var/lib/wok-exporter"),
        on_broken_state="fail",
        journal_bytes_max=512 * 2**20,
        journal_rows_max=1_000_000,
        history_requests=100_000,
        history_tasks=100_000,
        history_bytes_max=256 * 2**20,
        give_up_after=timedelta(minutes=5),
        instance="4f000016-b704-413d-859f-578a85fe9e83",
        host_name=socket.gethostname(),
        host_id=MACHINE,
        privacy="plain",
        listen=Address("127.0.0.1", 10965),
        ui=True,
        trace_url="",
        hosts=(),
        tls_certificate=None,
        tls_key=None,
        auth_file=None,
        open_metrics=False,
        log_level="info",
        log_format="text",
        resource_attributes={},
        service_name="",
        origins=dict.fromkeys(OPTIONS, "default"),
        warnings=(),
    )
    assert expected == config


def test_every_option_is_a_field() -> None:
    """The table and the fields of the configuration name the same things in the same order."""
    names = [field.name for field in fields(Config)]

    assert [*OPTIONS, "resource_attributes", "service_name", "origins", "warnings", "automatic"] == names


def test_flags_over_environment_over_file(host: Path) -> None:
    """The stronger source wins, option by option, and the origin tells which it was."""
    (host / "etc/wok-exporter.toml").write_text('privacy = "drop"\nlog_level = "debug"\nhistory_tasks = 7\n')
    environ = {"WOK_EXPORTER_LOG_LEVEL": "warning", "WOK_EXPORTER_HISTORY_TASKS": "8"}
    config = load({"history_tasks": "9", "listen": None}, environ, "run", root=host)

    assert (config.privacy, config.log_level, config.history_tasks) == ("drop", "warning", 9)
    origins = [config.origins[key] for key in ("privacy", "log_level", "history_tasks", "listen")]
    file = host / "etc/wok-exporter.toml"
    assert [f"{file}: privacy", "WOK_EXPORTER_LOG_LEVEL", "--history-tasks", "default"] == origins


def test_all_mistakes_are_told_at_once(host: Path) -> None:
    """Mistakes of all sources come together, with place, fault and remedy, also where they are overridden."""
    file = host / "my.toml"
    file.write_text(
        'privacy = "plane"\ntimezon = "UTC"\n"\\u001b[31m" = 1\njournal_bytes_max = "1TB"\n[listen]\nport = 1\n[tls]\n'
    )
    environ = {
        "WOK_EXPORTER_LISTEN": "127.0.0.1",
        "WOK_EXPORTER_LISTNE": "x",
        "WOK_EXPORTER_\x1b[31m": "x",
        "OTEL_RESOURCE_ATTRIBUTES": "a",
    }
    found = mistakes(host, {"config": str(file), "task_expiry": "30", "privacy": "hash"}, environ)

    expected = [
        f"{file}: privacy: 'plane' is unknown: write plain or hash or drop (did you mean plain?)",
        f"{file}: timezon: unknown key: remove it (did you mean timezone?)",
        f"{file}: '\\x1b[31m': unknown key: remove it",
        f"{file}: journal_bytes_max: '1TB' is not a size: write a number of B, KiB, MiB, GiB, kB, MB or GB",
        f"{file}: listen: {{'port': 1}} is not text: put it in quotes",
        f"{file}: tls: unknown table: keys are top-level",
        "WOK_EXPORTER_LISTEN: '127.0.0.1' is not an address and a port: write 127.0.0.1:10965 or [::1]:10965",
        "WOK_EXPORTER_LISTNE: unknown variable: unset it (did you mean WOK_EXPORTER_LISTEN?)",
        "'WOK_EXPORTER_\\x1b[31m': unknown variable: unset it (did you mean WOK_EXPORTER_UI?)",
        "--task-expiry: '30' is not a duration: write a number and its unit, as in 250ms, 90s, 24h or 7d",
        "OTEL_RESOURCE_ATTRIBUTES: 'a' is not key=value: write %3D for = and %2C for a comma inside",
    ]
    assert sorted(expected) == sorted(found)
    assert len(found) == len(str(ConfigError(found)).splitlines())


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("start_at", "beginning", "beginning"),
        ("start_at", "end", "end"),
        ("start_at", "7d", timedelta(days=7)),
        ("start_at", "2026-11-23T08:00:00Z", datetime(2026, 11, 23, 8, tzinfo=UTC)),
        (
            "start_at",
            "2026-11-23 08:00-03:00",
            datetime(2026, 11, 23, 8, tzinfo=timezone(timedelta(hours=-3))),
        ),
        ("poll_interval", "250ms", timedelta(milliseconds=250)),
        ("task_expiry", "1h30m", timedelta(minutes=90)),
        ("task_expiry", "1.5 d", timedelta(hours=36)),
        ("line_bytes_max", "65536", 65536),
        ("line_bytes_max", "64KiB", 65536),
        ("line_bytes_max", "0.5 MB", 500_000),
        ("journal_rows_max", "1_000", 1000),
        ("listen", "[::1]:80", Address("::1", 80)),
        ("listen", "localhost:0", Address("localhost", 0)),
        ("listen", "off", None),
        ("wok_error_log", "off", None),
        ("wok_error_log", "~/x", Path("/home/ada/x")),
        ("wok_access_log", "off", None),
        ("wok_access_log", "/x", Path("/x")),
        ("messages", "off", ()),
        ("messages", "auto", None),
        ("apps", "kimchi, ginger,", ("kimchi", "ginger")),
        (
            "hosts",
            "KVM01, wok.example., 192.0.2.1, [2001:db8::1]",
            ("KVM01", "wok.example.", "192.0.2.1", "[2001:db8::1]"),
        ),
        ("timezone", "America/Sao_Paulo", "America/Sao_Paulo"),
        ("instance", "kvm-7", "kvm-7"),
    ],
)
def test_values(host: Path, key: str, text: str, expected: object) -> None:
    """A value means the same in a variable, in a flag and, as text, in the file."""
    home = {"HOME": "/home/ada"}
    (host / "a.toml").write_text(f'{key} = "{text}"\n')
    configs = [
        load({}, {**home, OPTIONS[key].variable: text}, "run", root=host),
        load({key: text}, home, "run", root=host),
        load({"config": str(host / "a.toml")}, home, "run", root=host),
    ]

    assert [expected] * 3 == [getattr(config, key) for config in configs]


@pytest.mark.parametrize(
    ("key", "text", "fault"),
    [
        ("start_at", "begining", "is not a start position"),
        ("start_at", "24", "is not a start position"),
        ("start_at", "12x", "is not a duration"),
        ("start_at", "99999999w", "is out of range"),
        ("start_at", "0001-01-01", "is out of range"),
        ("poll_interval", "5ms", "is out of range: write 10ms to 1m"),
        ("task_expiry", "1h 5", "is not a duration"),
        ("line_bytes_max", "2GiB", "is out of range: write 4KiB to 1GiB"),
        ("line_bytes_max", "5 parsecs", "is not a size"),
        ("journal_rows_max", "-1", "is out of range"),
        ("journal_rows_max", "ten", "is not a whole number"),
        ("listen", ":80", "has no address"),
        ("listen", "::1:80", "is not an address and a port"),
        ("listen", "[zz]:80", "is not an IP address"),
        ("listen", "1.2.3:80", "is not an IP address"),
        ("listen", "a b:80", "is not a host name"),
        ("listen", "localhost:99999", "is not an address and a port"),
        ("listen", "a..b:80", "is not a host name"),
        ("listen", f"{'a' * 64}:80", "is not a host name"),
        ("listen", "224.0.0.1:80", "is not the address of one host"),
        ("listen", "[ff02::1]:80", "is not the address of one host"),
        ("hosts", "https://kvm01", "is not a host name or an IP address"),
        ("hosts", "kvm01,kvm02:9477", "is not a host name or an IP address"),
        ("hosts", "*.example.com", "is not a host name or an IP address"),
        ("hosts", "kvm01/page", "is not a host name or an IP address"),
        ("hosts", "m\u00fcnchen.example", "is not a host name or an IP address"),
        ("hosts", "[::1", "is not a host name or an IP address"),
        ("timezone", "america/sao_paolo", "did you mean America/Sao_Paulo?"),
        ("timezone", "../../etc/passwd", "is not a time zone"),
        ("timezone", "America", "is not a time zone"),
        ("apps", "kimchi,Ginger!", "is not an application"),
        ("host_name", "x" * 256, "is too long"),
        ("log", "/a\x1b[2Jb", "contains unprintable characters"),
        *[(key, text, "is empty: write a value") for key in OPTIONS for text in ("", " ", ",")],
    ],
)
def test_wrong_values(host: Path, key: str, text: str, fault: str) -> None:
    """A wrong value is one mistake, on one line, that names the flag and the fault, and ends in a remedy."""
    (mistake,) = mistakes(host, {key: text}, {})

    assert mistake.startswith(OPTIONS[key].flag + ": ")
    assert fault in mistake
    assert ": " in mistake.removeprefix(OPTIONS[key].flag + ": ")
    assert mistake.isprintable()


def test_a_file_may_say_that_there_is_none(host: Path) -> None:
    """Where nothing is the default, a file may have an empty value, but none of blanks or empty names."""
    file = host / "a.toml"
    for option in OPTIONS.values():
        file.write_text(f'{option.key} = ""\n')
        found = attempt({"config": str(file)}, {}, host)
        assert (found == []) == (not option.default), option.key
    for value in ('[""]', '" "', '["", ","]'):
        file.write_text(f"hosts = {value}\n")
        assert "hosts: is empty" in str(attempt({"config": str(file)}, {}, host))


@pytest.mark.parametrize("value", ["true", "1", "1.5", "[1]", "{a = 1}", "[[1]]", "07:30:00", "inf", '""'])
def test_values_of_any_toml_type(host: Path, value: str) -> None:
    """Whatever TOML has goes into every key without a traceback: it is taken, or it is a mistake of that key."""
    file = host / "a.toml"
    for key in OPTIONS:
        file.write_text(f"{key} = {value}\n")
        found = attempt({"config": str(file)}, {}, host)

        # A table under `ui` is one of the page's own keys, and its mistakes name those.
        named = "ui.a" if (key, value) == ("ui", "{a = 1}") else key

        assert [[str(file), named]] * len(found) == [m.split(": ")[:2] for m in found]


@given(st.dictionaries(st.sampled_from(list(OPTIONS)), st.text(max_size=40)), st.text(max_size=60))
def test_any_text(values: dict[str, str | None], attributes: str) -> None:
    """Any text in any flag and variable gives a configuration or mistakes, each on one line, and nothing else."""
    environ = {"OTEL_RESOURCE_ATTRIBUTES": attributes, "WOK_EXPORTER_CONFIG": os.devnull}
    found = attempt(values, environ, Path("/nonexistent"))

    assert all(mistake.isprintable() for mistake in found)


def test_native_values_of_the_file(host: Path) -> None:
    """Numbers, lists and times may be written as TOML's own, and paths are relative to the file."""
    (host / "tables").mkdir()
    (host / "a.toml").write_text(
        "journal_bytes_max = 1048576\nhistory_tasks = 0\nstart_at = 2026-11-23T08:00:00Z\n"
        'apps = ["kimchi"]\nmessages = ["tables"]\nlog = "wok.data"\n'
    )
    config = load({"config": str(host / "a.toml")}, {}, "run", root=host)

    assert (config.journal_bytes_max, config.history_tasks) == (1048576, 0)
    assert datetime(2026, 11, 23, 8, tzinfo=UTC) == config.start_at
    assert (("kimchi",), (host / "tables",)) == (config.apps, config.messages)
    assert host / "wok.data" == config.log


def test_a_time_without_a_zone_is_in_the_zone_of_the_log(host: Path) -> None:
    """A start given as a local time means the configured zone, else the host's."""
    flags = {"start_at": "2026-11-23", "timezone": "Asia/Kolkata"}
    there = load(flags, {}, "run", root=host).first_time(0)
    here = load({"start_at": "2026-11-23"}, {}, "run", root=host).first_time(0)

    expected = datetime(2026, 11, 22, 18, 30, tzinfo=UTC).timestamp() * NANOS
    assert expected == there
    assert datetime(2026, 11, 23).astimezone().timestamp() * NANOS == here


@pytest.mark.parametrize(
    ("start_at", "expected"), [("beginning", 0), ("end", None), ("1h", 6_400 * NANOS), ("9h", 0)]
)
def test_the_first_time(host: Path, start_at: str, expected: int | None) -> None:
    """A duration counts back from now, never before the epoch; the words are the ends of the log."""
    config = load({"start_at": start_at}, {}, "run", root=host)

    assert expected == config.first_time(10_000 * NANOS)


def test_the_installed_wok(host: Path) -> None:
    """The log of the newest Wok is preferred, and its other logs are read where they can be."""
    for name in ("var/log/wok/wok-req.log", "var/log/wok/wok-error.log", "var/log/wok/wok-access.log"):
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).touch()
    old = load({}, {}, "run", root=host)
    (host / "var/lib/wok").mkdir(parents=True)
    (host / "var/lib/wok/user-requests.data").touch()
    new = load({}, {}, "run", root=host)

    assert (host / "var/log/wok/wok-req.log", host / "var/log/wok/wok-error.log") == (
        old.log,
        old.wok_error_log,
    )
    assert host / "var/log/wok/wok-access.log" == old.wok_access_log
    assert host / "var/lib/wok/user-requests.data" == new.log


def test_replay_takes_nothing_of_the_daemon(host: Path) -> None:
    """A replay neither guesses another log nor writes into a state that only the file or a variable names."""
    (host / "var/log/wok").mkdir(parents=True)
    (host / "var/log/wok/wok-error.log").touch()
    (host / "var/log/wok/wok-access.log").touch()
    (host / "etc/wok-exporter.toml").write_text('state = "/var/lib/wok-exporter"\n')
    environ = {"WOK_EXPORTER_STATE": "/var/lib/wok-exporter"}
    silent = load({}, environ, "replay", root=host)
    told = load({"state": "/s", "wok_error_log": "/e"}, environ, "replay", root=host)

    assert (silent.state, silent.wok_error_log, silent.wok_access_log) == (None, None, None)
    assert (Path("/s"), Path("/e")) == (told.state, told.wok_error_log)


def test_identity(host: Path) -> None:
    """The instance is a hash of the machine id; without one it must be given, and serves as the host's id."""
    ours = load({}, {}, "run", root=host)
    found = []
    for nothing in ("uninitialized\n", "0" * 32, "\n", MACHINE[:-2]):
        (host / "etc/machine-id").write_text(nothing)
        found += mistakes(host, {}, {})
    told = load({"instance": "kvm-7"}, {}, "run", root=host)

    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", ours.instance)
    assert MACHINE not in ours.instance.replace("-", "")
    missing = "instance: this host has no /etc/machine-id to derive it from: set --instance"
    assert [missing] * 4 == found
    assert (told.instance, told.host_id) == ("kvm-7", "kvm-7")
    assert load({}, {}, "check", root=host).instance == "unknown"


def test_what_does_not_fit_together(host: Path) -> None:
    """A key without certificate, one file in two roles, and files that are not there are mistakes of `run` alone."""
    os.mkfifo(host / "pipe")
    flags = {"tls_key": "/nowhere/k", "log": "/a", "wok_error_log": "/a", "messages": "/nowhere/i18n.py"}
    flags["auth_file"] = f"{host}/pipe"
    flags["wok_access_log"] = "/a"
    found = mistakes(host, flags, {})

    remedy = "name a file that wok-exporter's user can read"
    expected = [
        "--wok-error-log: is the same file as log: write Wok's error log, or off",
        "--wok-access-log: is the same file as log: write Wok's access log, or off",
        "--wok-access-log: is the same file as wok_error_log: write Wok's access log, or off",
        "--tls-key: is set without a certificate: set tls_certificate, too",
        f"--tls-key: /nowhere/k cannot be read (No such file or directory): {remedy}",
        f"--auth-file: {host}/pipe cannot be read (not a regular file): {remedy}",
        "--messages: /nowhere/i18n.py cannot be read (No such file or directory): name an i18n.py or its directory, let wok-exporter's user read it, or write auto or off",
    ]
    assert expected == found
    assert load(flags, {}, "check", root=host)


def test_warnings(host: Path) -> None:
    """To be open to the network without a password, or with one in clear, is allowed and warned of."""
    (host / "f").touch()
    file = str(host / "f")
    flags = [
        {"listen": "0.0.0.0:1"},
        {"listen": "[::]:1", "auth_file": file},
        {"listen": "[::]:1", "auth_file": file, "tls_certificate": file},
        {"listen": "127.9.9.9:1"},
        {"listen": "localhost:1"},
        {"listen": "[::1]:1"},
    ]
    warnings = [load(each, {}, "run", root=host).warnings for each in flags]

    who = "anyone who can reach 0.0.0.0:1 can read who did what"
    expected = [
        (f"--listen: {who}: set auth_file, or listen on 127.0.0.1:1",),
        ("--listen: passwords for [::]:1 are sent unencrypted: set tls_certificate",),
        (), (), (), (),
    ]  # fmt: skip
    assert expected == warnings


def test_the_file(host: Path) -> None:
    """A file that was named must be there and be TOML; the default one may be missing, or, for all but the daemon,
    closed to this user.
    """
    names = ("none.toml", "bad.toml", "latin.toml", "deep.toml")
    (host / "bad.toml").write_text("log = \n")
    (host / "latin.toml").write_bytes(b'log = "\xe9"\n')
    (host / "deep.toml").write_text(f"log = {'[' * 100_000}\n")
    named = [mistakes(host, {"config": str(host / name)}, {}) for name in names]
    (host / "etc/wok-exporter.toml").mkdir()
    closed = load({}, {}, "tasks", root=host).warnings
    daemons = mistakes(host, {}, {})
    by_variable = mistakes(host, {}, {"WOK_EXPORTER_CONFIG": str(host / "etc")})

    faults = ["no such file", *["invalid TOML"] * 3]
    assert [f"{host}/{name}" for name in names] == [m.split(": ")[0] for (m,) in named]
    assert all(fault in m for fault, (m,) in zip(faults, named, strict=True))
    remedy = "let this user read it, or name another one with --config"
    assert (f"{host}/etc/wok-exporter.toml: cannot be read (Is a directory): {remedy}",) == closed
    assert [*closed] == daemons
    assert [f"{host}/etc: cannot be read (Is a directory): {remedy}"] == by_variable


def test_variables_that_are_nobodys(host: Path) -> None:
    """Empty variables, other programs' variables and Kubernetes' links to a service of our name are ignored."""
    environ = {
        "WOK_EXPORTER_LISTEN": "",
        "WOK_EXPORTER_PORT": "tcp://10.0.0.1:80",
        "WOK_EXPORTER_PORT_80_TCP_ADDR": "10.0.0.1",
        "WOK_EXPORTER_SERVICE_HOST": "10.0.0.1",
        "WOK_HOME": "/",
    }

    assert load({}, {}, "run", root=host) == load({}, environ, "run", root=host)


def test_resource_attributes(host: Path) -> None:
    """OpenTelemetry's two variables are decoded as its specification says."""
    environ = {"OTEL_RESOURCE_ATTRIBUTES": " team = a%2Cb ,k%3D=v=w,,site=S%C3%A3o Paulo,service.name=wok-7"}
    config = load({}, environ, "run", root=host)
    named = load({}, {**environ, "OTEL_SERVICE_NAME": "other"}, "run", root=host)

    assert config.resource_attributes == {"team": "a,b", "k=": "v=w", "site": "São Paulo"}
    assert (config.service_name, named.service_name) == ("wok-7", "other")


def test_wrong_resource_attributes(host: Path) -> None:
    """What cannot be decoded is a mistake, not an attribute with a hole."""
    found = mistakes(host, {}, {"OTEL_RESOURCE_ATTRIBUTES": "a=1,b=50%,c=%FF,=x,d"})

    where = "OTEL_RESOURCE_ATTRIBUTES:"
    expected = [
        f"{where} 'b=50%' contains a % without two hexadecimal digits: write %25 for it",
        f"{where} 'c=%FF' does not decode to UTF-8: percent-encode its UTF-8 bytes",
        f"{where} '=x' is not key=value: write %3D for = and %2C for a comma inside",
        f"{where} 'd' is not key=value: write %3D for = and %2C for a comma inside",
    ]
    assert expected == found


def test_flags_of_a_command(host: Path) -> None:
    """A command has the flags that matter to it, and what they were given is what `load` takes."""
    parser = argparse.ArgumentParser()
    add_flags(parser, "replay")
    flags = vars(parser.parse_args(["--give-up-after", "1s", "--wok-error-log", "off"]))

    mine = {key for key, option in OPTIONS.items() if "replay" in option.commands}
    assert mine | {"config"} == set(flags)
    assert load(flags, {}, "replay", root=host).give_up_after == timedelta(seconds=1)
    assert "WOK_EXPORTER_GIVE_UP_AFTER, default: 5m" in " ".join(parser.format_help().split())


def test_every_option_belongs_to_a_command() -> None:
    """No option is without a command, and every command can be given its flags."""
    for command in ("run", "replay", "check", "tasks", "text", "demo"):
        add_flags(argparse.ArgumentParser(), command)

    assert not [key for key, option in OPTIONS.items() if not option.commands]


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"listen": "[::1]:80", "start_at": "2026-11-23T08:00:00-03:00", "poll_interval": "1s"},
        {
            "listen": "off",
            "messages": "off",
            "wok_error_log": "off",
            "wok_access_log": "off",
            "timezone": "Asia/Kolkata",
        },
        {"apps": "kimchi,ginger", "hosts": "a,b", "start_at": "end", "ui": "false", "task_expiry": "1d2h3m"},
        {"messages": "/,/etc", "log": '/l"o\\g', "start_at": "beginning", "journal_bytes_max": "7MiB"},
    ],
)
def test_the_effective_settings_can_be_written_back(host: Path, flags: dict[str, str | None]) -> None:
    """What --check-config prints is a TOML file with every key, and gives the same values when it is loaded."""
    given = load(flags, {}, "run", root=host)
    (host / "again.toml").write_text(effective(given))
    again = load({"config": str(host / "again.toml")}, {}, "run", root=host)

    assert [getattr(again, key) for key in OPTIONS] == [getattr(given, key) for key in OPTIONS]
    assert all(f"{key} = " in effective(given) for key in OPTIONS)
    for key in flags:
        assert re.search(rf"^{key} = .*# {OPTIONS[key].flag}$", effective(given), re.MULTILINE)


def test_an_unknown_variable_is_shown_without_what_controls_a_terminal(host: Path) -> None:
    """The names of the environment are as foreign as its values."""
    warnings = load({}, {"OTEL_COLOUR\x1b[31m": "x"}, "run", root=host).warnings

    assert warnings == (r"'OTEL_COLOUR\x1b[31m': unknown variable: it has no effect",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPIONT", "did you mean OTEL_EXPORTER_OTLP_ENDPOINT?"),
        ("OTEL_EXPORTER_OTLP_TRACE_ENDPOINT", "did you mean OTEL_EXPORTER_OTLP_TRACES_ENDPOINT?"),
        ("OTEL_EXPORTER_OTLP_HEADER", "did you mean OTEL_EXPORTER_OTLP_HEADERS?"),
        ("Otel_Service_Name", "did you mean OTEL_SERVICE_NAME?"),
        ("OTEL_COLOUR", "it has no effect"),
        ("OTEL_BSP_SCHEDULE_DELAY", ""),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", ""),
    ],
)
def test_unknown_variables_of_opentelemetry(host: Path, name: str, expected: str) -> None:
    """A variable that nobody defines is warned of, with the one that was meant; those of the standard are not."""
    warnings = load({}, {name: "x"}, "run", root=host).warnings

    assert warnings == ((f"{name}: unknown variable: {expected}",) if expected else ())


@pytest.mark.parametrize(
    ("text", "variables", "mistake"),
    [
        ("A=b", {"A": "b"}, ""),
        ("# A=b\n; A=c\n\n A = b c ", {"A": "b c"}, ""),
        ('A=\'b # c\'\nB="d \\"e"', {"A": "b # c", "B": 'd "e'}, ""),
        ("A=b \\\nc", {"A": "b c"}, ""),
        ("A=b # no comment", {"A": "b # no comment"}, ""),
        ("export A=b", {}, "line 1: `export` is not allowed"),
        ("A: b", {}, "line 1: not NAME=value"),
        ("A=$HOME/x", {"A": "$HOME/x"}, "which systemd does not expand"),
    ],
)
def test_a_file_of_variables(text: str, variables: dict[str, str], mistake: str) -> None:
    """A file for EnvironmentFile= is read by systemd's rules, and what it ignores is named by its line."""
    found = parse(text)

    assert found.variables == variables
    assert mistake in "".join(found.mistakes)
    assert bool(mistake) is bool(found.mistakes)


def test_the_page_is_current() -> None:
    """docs/configuration.md is what `configuration_page` returns; write it again after changing an option."""
    assert configuration_page() == PAGE.read_text()


def test_the_example_says_the_defaults(host: Path) -> None:
    """The file that the page shows can be used as it is, and changes nothing."""
    example = configuration_page().partition("```toml\n")[2].partition("```")[0]
    (host / "a.toml").write_text(example)
    config = load({"config": str(host / "a.toml")}, {}, "run", root=host)

    default = load({}, {}, "run", root=host)
    keys = list(OPTIONS)
    assert [getattr(default, key) for key in keys] == [getattr(config, key) for key in keys]
    assert len(keys) == len(set(config.origins.values()))


@pytest.mark.parametrize(
    "url", ["javascript:alert({trace_id})", "http://jaeger/trace/", "//jaeger/{trace_id}", "jaeger"]
)
def test_a_trace_url_leads_to_a_trace(url: str) -> None:
    """The page's links go to http or https, and to the trace that was asked for."""
    with pytest.raises(ConfigError, match="is not a link to a trace"):
        load({"trace_url": url, "instance": "x"}, {}, "run")

    assert (
        load({"trace_url": "https://j/trace/{trace_id}"}, {}, "check").trace_url
        == "https://j/trace/{trace_id}"
    )


def test_switches_are_true_or_false() -> None:
    """A switch is a boolean of TOML, or one of two words; another word is a mistake that says so."""
    assert load({"ui": "false", "open_metrics": "true"}, {}, "check").ui is False
    with pytest.raises(ConfigError, match="write true or false"):
        load({"ui": "off", "instance": "x"}, {}, "run")


def test_the_page_has_a_table_too(tmp_path: Path) -> None:
    """`ui.trace_url` is `trace_url`; a key that the table does not have is a mistake by its name."""
    file = tmp_path / "wok-exporter.toml"
    file.write_text('ui.trace_url = "http://jaeger:16686/trace/{trace_id}"\n')
    found = load({"config": str(file)}, {}, "check")
    file.write_text('[ui]\ncolour = "red"\n')
    with pytest.raises(ConfigError, match=r"ui\.colour: unknown key"):
        load({"config": str(file)}, {}, "check")

    assert (found.ui, found.trace_url) == (True, "http://jaeger:16686/trace/{trace_id}")
