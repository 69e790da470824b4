"""What decides what a log means, and what says it, as a configuration has them: the same for every command."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporter.config.options import Config
from exporter.parse.parser import first_time
from exporter.parse.timezone import Zones
from exporter.pipeline.batch_processor import ProcessingConfig
from exporter.records import NANOS
from exporter.source.archive import Archive
from exporter.source.tail import Tail
from exporter.telemetry.mapping import Telemetry
from exporter.telemetry.resource import Identity
from exporter.wok.messages import Messages
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

log = logging.getLogger(__name__)


def tables_of(config: Config) -> Sequence[Path]:
    """Return where Wok's message tables are: as configured, else those of the Wok that is installed."""
    return Messages.default_paths() if config.messages is None else config.messages


def messages_of(config: Config) -> Messages:
    """Return the message tables, read once for all that need them; what could not be read is in `problems`."""
    return Messages.load(tables_of(config))


def tail_of(config: Config, position: str, *, from_end: bool) -> Tail:
    """Return a reader of the growing log. Raises ValueError for a position that is none."""
    return Tail(
        config.log,
        position,
        line_bytes_max=config.line_bytes_max,
        from_end=from_end,
        olddir=config.olddir,
        first_time=first_time(Zones(config.timezone)),
    )


def archive_of(config: Config, files: Sequence[Path]) -> Archive:
    """Return a reader of finished logs, in the order of their records. Raises ArchiveError."""
    return Archive(files, line_bytes_max=config.line_bytes_max, first_time=first_time(Zones(config.timezone)))


def processing_config_of(config: Config, messages: Messages, *, skip_until: int = 0) -> ProcessingConfig:
    """Return what decides what the configured host's log means; `skip_until` is in nanoseconds."""
    return ProcessingConfig(
        instance=config.instance,
        zones=Zones(config.timezone),
        naming=Operations.load(),
        expiry=int(config.task_expiry.total_seconds() * NANOS),
        skip_until=skip_until,
        code_of=messages.code_of,
        functions=TaskFunctions.load() if config.wok_error_log is not None else None,
    )


def telemetry_of(
    config: Config, messages: Messages, log_name: str, file_names: Mapping[bytes, str] | None = None
) -> Telemetry:
    """Return what says it to backends, and warn of tables that could not be read.

    `log_name` is the log's base name as spans carry it; `file_names` has those of other files, by identity.
    """
    for problem in messages.problems:
        log.warning("%s", problem)
    identity = Identity(
        config.instance, config.host_name, config.host_id, config.resource_attributes, config.service_name
    )
    return Telemetry(
        identity, log_file_name=log_name, privacy=config.privacy, messages=messages, file_names=file_names
    )
