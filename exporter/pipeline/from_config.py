"""Builds the parts of a pipeline from the configuration, in the same way for every command."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from exporter.config.options import Config
from exporter.parse.parser import first_time
from exporter.parse.timezone import Zones
from exporter.pipeline.answers import AccessLog
from exporter.pipeline.batch_processor import ProcessingConfig
from exporter.pipeline.later_quotes import LaterQuotes
from exporter.pipeline.reader import OpenSource
from exporter.records import NANOS
from exporter.source.archive import Archive
from exporter.source.rotation import paths_of
from exporter.source.tail import Tail
from exporter.telemetry.mapping import Telemetry
from exporter.telemetry.resource import Identity
from exporter.wok.message_tables import default_paths
from exporter.wok.messages import Messages
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

log = logging.getLogger(__name__)


def tables_of(config: Config) -> Sequence[Path]:
    """Return the paths of Wok's message tables: as configured, else those of the installed Wok."""
    return default_paths() if config.messages is None else config.messages


def messages_of(config: Config) -> Messages:
    """Read the message tables; unreadable ones are listed in `problems`."""
    return Messages.load(tables_of(config))


def tail_of(config: Config, position: str, *, from_end: bool) -> Tail:
    """Return a reader of the growing log. Raises ValueError for an invalid position."""
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


def error_archive_of(config: Config) -> OpenSource | None:
    """Return what opens wok-error.log with its rotated files as a finished log, None without it."""
    return partial(Archive, paths_of(config.wok_error_log)) if config.wok_error_log else None


def processing_config_of(
    config: Config, messages: Messages, *, files: Sequence[Path] = (), skip_until: int = 0
) -> ProcessingConfig:
    """Return the settings for processing the configured log, or these files.

    `skip_until` is in nanoseconds.
    """
    zones = Zones(config.timezone)
    return ProcessingConfig(
        instance=config.instance,
        zones=zones,
        naming=Operations.load(),
        expiry=int(config.task_expiry.total_seconds() * NANOS),
        skip_until=skip_until,
        code_of=messages.code_of,
        functions=TaskFunctions.load() if config.wok_error_log is not None else None,
        access_log=AccessLog(config.wok_access_log, zones) if config.wok_access_log else None,
        quotes=quotes_of(config, files),
    )


def identity_of(config: Config) -> Identity:
    """Return the Wok that wrote the log."""
    return Identity(
        config.instance, config.host_name, config.host_id, config.resource_attributes, config.service_name
    )


def quotes_of(config: Config, files: Sequence[Path] = ()) -> LaterQuotes | None:
    """Return a search for quotes of wok-error.log in these files, else in those of the log."""
    if config.wok_error_log is None:
        return None
    return LaterQuotes(lambda: files or paths_of(config.log, config.olddir))


def telemetry_of(
    config: Config, messages: Messages, log_name: str, file_names: Mapping[bytes, str] | None = None
) -> Telemetry:
    """Return the encoder of spans and log records; log a warning for each unreadable message table.

    `log_name` is the base name of the log, for the attributes of spans. `file_names` has the names
    of other files, by identity.
    """
    for problem in messages.problems:
        log.warning("%s", problem)
    return Telemetry(
        identity_of(config),
        log_file_name=log_name,
        privacy=config.privacy,
        messages=messages,
        operations=Operations.load(),
        file_names=file_names,
    )
