"""Writes docs/configuration.md and deploy/wok-exporter.toml from the table of options (`make
docs`).
"""

from __future__ import annotations

from textwrap import fill, wrap

from exporter.config.options import CONFIG_FILE, GROUPS, OPTIONS, PREFIX, Option

WRAP_CHARS = 100


def configuration_page() -> str:
    """Return docs/configuration.md: each option with its meaning, flag, variable, default and
    commands.
    """
    parts = [HEAD, _contents()]
    for title, options in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += map(_section, options)
    example = "\n".join(setting(option) for option in OPTIONS.values())
    parts.append(
        f"## A complete file\n\nThis file sets every option to its default:\n\n```toml\n{example}\n```\n"
    )
    parts.append(TAIL)
    return "\n".join(parts)


def example_file() -> str:
    """Return deploy/wok-exporter.toml: every option with its meaning and
    default, as comments only.
    """
    parts = [EXAMPLE_HEAD]
    for title, options in GROUPS.items():
        parts.append(f"# --- {title}\n")
        for option in options:
            said = f"{_sentence(option)}"
            if "run" not in option.commands:
                said += f" (Not used by the daemon, only by: {', '.join(option.commands)}.)"
            parts.append("\n".join(wrap(said, WRAP_CHARS, initial_indent="# ", subsequent_indent="# ")))
            parts.append(f"#{setting(option)}\n")
    return "\n".join(parts)


def setting(option: Option, value: str | None = None) -> str:
    """Return the line of TOML that sets an option, to its default unless a value is given."""
    text = option.default if value is None else value
    is_bare = text.isdigit() or text in {"true", "false"}
    return f"{option.key} = {text if is_bare else _quoted(text)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _sentence(option: Option) -> str:
    return f"{option.help[0].upper()}{option.help[1:]}."


def _section(option: Option) -> str:
    default = f"`{option.default}`" if option.default else "none"
    commands = ", ".join(f"`{command}`" for command in option.commands)
    said = fill(_sentence(option), WRAP_CHARS, break_on_hyphens=False)
    return (
        f"### `{option.key}`\n\n"
        f"{said}\n\n"
        f"* flag: `{option.flag} {option.metavar}`\n"
        f"* variable: `{option.variable}`\n"
        f"* default: {default}\n"
        f"* used by: {commands}\n"
    )


def _contents() -> str:
    titles = [*GROUPS, "A complete file", "OpenTelemetry's own variables"]
    lines = [f"* [{title}](#{_anchor(title)})" for title in titles]
    return "\n".join(lines) + "\n"


def _anchor(title: str) -> str:
    """Return the fragment that GitHub gives a heading."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


EXAMPLE_HEAD = f"""\
# wok-exporter: the configuration of this host, /{CONFIG_FILE}.
#
# Everything is optional. Every setting below is a comment that shows its default: to change it,
# remove the # and edit the value. `wok-exporter run --check-config` validates the file and prints
# the effective settings. `systemctl reload wok-exporter` applies it, or logs what is wrong and
# keeps running with the previous configuration. Only a change of `state` needs a restart.
#
# Durations have units: 250ms, 90s, 24h, 7d. Sizes are bytes, or have units: 512MiB. Where to send
# traces and log records is set with OpenTelemetry's own variables, in /etc/default/wok-exporter.
"""

HEAD = f"""\
# Configuration

Every setting is optional. Settings come from a TOML file, environment variables and flags: a
variable overrides the file, and a flag overrides both.

The file is `/{CONFIG_FILE}` if it exists, or the one that `--config FILE` or
`{PREFIX}CONFIG` names. Its keys are top-level, without tables. To validate the configuration,
run `wok-exporter run --check-config`. It reports all errors together, each with its place and
remedy, or prints the effective settings and where each came from.

* Durations have units: `250ms`, `90s`, `24h`, `7d`, `1h30m`.
* Sizes are bytes, or have units: `512MiB`, `1GB`.
* Lists are TOML lists, or texts with commas.
* Paths may begin with `~`. Relative paths in the file are relative to the file.
* An empty variable counts as unset.

To apply a changed file, run `systemctl reload wok-exporter` (SIGHUP). The daemon reads the file
again, and the certificate, key and user file that it names, and validates all of it first. If there
is an error, or the state cannot be written, the daemon logs the reason and keeps running with the
previous configuration. Otherwise it starts again from its state: no line is lost or counted twice.
Environment variables and `state` change only with a restart. In a terminal, SIGHUP stops the
daemon.
"""

TAIL = """\
## OpenTelemetry's own variables

Where to send spans and log records is set with OpenTelemetry's standard variables only:
`OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL` (`http/protobuf` or `grpc`), `_HEADERS`, `_CERTIFICATE`,
`_CLIENT_CERTIFICATE`, `_CLIENT_KEY`, `_COMPRESSION` and `_TIMEOUT`. Write
`OTEL_EXPORTER_OTLP_TRACES_` or `OTEL_EXPORTER_OTLP_LOGS_` in front to set one signal.
`OTEL_TRACES_EXPORTER=none` and `OTEL_LOGS_EXPORTER=none` disable a signal, `OTEL_SDK_DISABLED=true`
disables both. Without an endpoint, nothing is sent and nothing is queued.

`_TIMEOUT` is in seconds and covers the whole request. `_HEADERS` is a list `name=value,name=value`
without quotes, percent-encoded. `_COMPRESSION` is `gzip`, `none` or, over HTTP, `deflate`. Over
HTTP, `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` apply. The proxy must be an `http://`
one. Without `_CERTIFICATE`, HTTP trusts the certificates of the operating system (`SSL_CERT_FILE`
replaces them), and gRPC trusts its own list. Certificate files are read again for each new
connection, so renewed ones need no reload. Credential providers of the Python SDK
(`OTEL_PYTHON_EXPORTER_OTLP_..._CREDENTIAL_PROVIDER`) are not supported.

`OTEL_RESOURCE_ATTRIBUTES` (`key=value,key=value`, percent-encoded) adds attributes to the resource
of every span and log record. `OTEL_SERVICE_NAME`, or `service.name` among these attributes,
replaces the application's name as the service name of everything.
"""
