"""Turns events into spans, log records and history rows.

This part is pure: the same log always gives the same bytes. All ids and times come from the log,
attributes have a fixed order, and the output does not depend on the time of reading, the process or
the version of this program. Increase MAPPING_VERSION with every change that alters the output for
the same log.

`attributes.py` selects the attributes of an event. `spans.py`, `log_records.py` and `rows.py` build
the output. `reasons.py` has the reason of a failure, `resource.py` the resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from exporter import otlp_encoding
from exporter.records import Event, Record, RequestRow, RequestSeen, TaskEnded, TaskRow
from exporter.telemetry import log_records, rows
from exporter.telemetry.attributes import Attributes, app_of
from exporter.telemetry.reasons import failure_of
from exporter.telemetry.resource import Identity, Resources
from exporter.telemetry.spans import Spans
from exporter.wok.operations import Operations
from exporter.wok.sentences import MessageTables, People, Privacy, Sentences

SCOPE_NAME: Final = "wok-exporter"
MAPPING_VERSION: Final = "3"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = otlp_encoding.scope(SCOPE_NAME, MAPPING_VERSION)


class Telemetry:
    """Turns events into encoded spans, log records and history rows.

    `log_file_name` is the base name of the log as configured, `messages` the message tables of the
    host's Wok, `operations` the table that says what a request works on. No method raises an
    exception, whatever the log contains.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        log_file_name: str,
        privacy: Privacy,
        messages: MessageTables,
        operations: Operations,
        file_names: Mapping[bytes, str] | None = None,
    ) -> None:
        self._people = People(identity.instance, privacy)
        self._sentences = Sentences(messages, self._people)
        self._resources = Resources(identity)
        self._attributes = Attributes(self._people, operations, log_file_name, file_names)
        self._spans = Spans()

    def resource(self, app: str) -> bytes:
        """Return the encoded Resource of an application."""
        return self._resources.of(app)

    def service(self, event: Event) -> str:
        """Return the application whose resource the event belongs to."""
        return app_of(event)

    def span(self, event: RequestSeen | TaskEnded) -> bytes:
        """Return the span as one `spans` field of ScopeSpans: tag, length, Span."""
        attributes = self._attributes.of(event)
        if isinstance(event, RequestSeen):
            return self._spans.of_request(event, attributes)
        return self._spans.of_task(event, attributes, failure_of(event, self._sentences))

    def log(self, event: Event) -> bytes:
        """Return the log record as one `log_records` field of ScopeLogs: tag, length, LogRecord."""
        attributes = self._attributes.of(event)
        record = event.record
        if record is None:
            assert isinstance(event, TaskEnded), "every other event is reported by a record"
            return log_records.unreported_end(event, attributes)
        return log_records.reported(event, record, attributes, self._sentences.of(record))

    def message(self, record: Record) -> str:
        """Return the English sentence of a record, with the reason of a failure."""
        return self._sentences.of(record).message

    def request_row(self, event: RequestSeen) -> RequestRow:
        """Return the history row of a request; the privacy setting applies here too."""
        return rows.of_request(event, self._people, self._sentences, self._attributes.resource_of(event))

    def task_row(self, event: TaskEnded) -> TaskRow:
        """Return the history row of an ended task."""
        return rows.of_task(event, self._sentences, self._attributes.resource_of(event))
