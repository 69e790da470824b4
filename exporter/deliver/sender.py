"""A sender: one destination of one signal, over one of the two transports of OTLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from exporter.deliver.otlp_env import read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.deliver.responses import Answer
    from exporter.records import Signal


class Sender(Protocol):
    """One destination of one signal. `endpoint` is for people: without user, password and query."""

    endpoint: str

    def send(self, body: bytes) -> Answer:
        """Send one Export...ServiceRequest.

        Blocks for the configured timeout at most. Raises nothing that a backend or a network did.
        """

    def close(self) -> None:
        """Close the connection."""


def make_sender(signal: Signal, environ: Mapping[str, str]) -> Sender:
    """Return the sender that the environment describes for a signal; it does not connect yet.

    Raises what `read_settings` raises.
    """
    settings = read_settings(signal, environ)
    if settings.protocol == "grpc":
        from exporter.deliver.grpc import GrpcSender  # noqa: PLC0415  # 30 MB, and not installed everywhere

        return GrpcSender(settings)
    from exporter.deliver.http import HttpSender  # noqa: PLC0415  # half of the start-up time of a short command

    return HttpSender(settings)
