"""Encodes OTLP resources. A resource describes the host's Wok and its plug-in, not this program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter import otlp_encoding
from exporter.telemetry.attributes import text_piece

_RESOURCES_MAX = 2048
"""Size of the cache. A host has five applications; a hostile log can name any number."""


class Identity(NamedTuple):
    """The Wok that wrote the log.

    `instance` identifies the Wok of one host across restarts and is part of every derived id.
    `attributes` are those of OTEL_RESOURCE_ATTRIBUTES, `service_name` is OTEL_SERVICE_NAME or
    empty.
    """

    instance: str
    host_name: str
    host_id: str
    attributes: Mapping[str, str]
    service_name: str = ""


class Resources:
    """Encodes and caches the resource of each application.

    Attributes of the user override ours, but an empty one does not remove one of ours.
    OTEL_SERVICE_NAME overrides both (OpenTelemetry specification, Resource SDK).
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._encoded: dict[str, bytes] = {}

    def of(self, app: str) -> bytes:
        """Return the encoded Resource message of an application."""
        found = self._encoded.get(app)
        if found is None:
            if len(self._encoded) >= _RESOURCES_MAX:
                self._encoded.clear()
            found = self._encoded[app] = self._encode(app)
        return found

    def _encode(self, app: str) -> bytes:
        identity = self._identity
        attributes = {
            "service.namespace": "wok",
            "service.name": app,
            "service.instance.id": identity.instance,
            "host.name": identity.host_name,
            "host.id": identity.host_id,
        }
        attributes.update((key, value) for key, value in sorted(identity.attributes.items()) if value)
        if identity.service_name:
            attributes["service.name"] = identity.service_name
        return otlp_encoding.resource(
            text_piece(otlp_encoding.key(key), value) for key, value in attributes.items() if value
        )
