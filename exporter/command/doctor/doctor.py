"""Runs all checks in the order in which data flows, so that the first problem is the one to solve
first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from exporter.command.doctor import backend_checks, host_checks, log_checks, state_checks
from exporter.command.doctor.as_user import user_to_check
from exporter.command.doctor.findings import Finding, as_object, ok, problem, report, warning
from exporter.config.config import ConfigError, load
from exporter.config.options import Config
from exporter.terminal.screen import terminal_width

USER = "wok-exporter"


def doctor(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    environment_file: Path | None,
    as_json: bool,
    out: TextIO,
    user: str = USER,
    root: Path = Path("/"),
) -> int:
    """Print what was found; return 0 without a problem, otherwise 1.

    `flags` are options by key, as for the daemon; `environment_file` is the service's, by default
    /etc/default/wok-exporter if it exists. Files are looked at as `user`, if this process is root
    and there is such a user. `root` is where the host's own files are. Changes nothing, and sends
    nothing but empty requests.
    """
    findings = list(_findings(flags, environ, environment_file, user_to_check(user), root))
    if as_json:
        json.dump(as_object(findings), out, indent=2)
        out.write("\n")
    else:
        out.writelines(f"{line}\n" for line in report(findings, terminal_width(out)))
    out.flush()
    return 1 if any(finding.level == "problem" for finding in findings) else 0


def _findings(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    environment_file: Path | None,
    user: str,
    root: Path,
) -> Iterator[Finding]:
    service = host_checks.service_environment(environ, environment_file)
    yield from service.findings
    try:
        config = load(flags, service.variables, "run", root=root)
    except ConfigError as error:
        for mistake in error.mistakes:
            what, _, remedy = mistake.rpartition(": ")
            yield problem("configuration", what or mistake, remedy)
        return
    for said in config.warnings:
        what, _, remedy = said.rpartition(": ")
        yield warning("configuration", what, remedy)
    yield ok("configuration", f"valid; settings that are not defaults: {_changed(config)}")
    yield from host_checks.wok(host_checks.installed_wok(root / "usr" if root != Path("/") else None))
    now = time.time()
    sample = log_checks.log(config, user, now)
    yield from sample.findings
    yield from log_checks.error_log(config, user, root)
    yield log_checks.access_log(config, user, root)
    facts = state_checks.state(config)
    yield from facts.findings
    yield from state_checks.daemon(config)
    yield from backend_checks.backends(service.variables)
    yield from host_checks.clock(now, facts.committed)


def _changed(config: Config) -> str:
    return ", ".join(key for key, origin in config.origins.items() if origin != "default") or "none"
