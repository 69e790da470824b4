"""Checks of the backends: what each answers to an empty request, sent as the
daemon would send it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from exporter.command.doctor.findings import Finding, ok, problem, warning
from exporter.deliver.otlp_env import OtlpConfigError, configured, is_disabled, read_settings
from exporter.deliver.remedies import remedy_of, symptom_of
from exporter.deliver.responses import Answer
from exporter.deliver.sender import make_sender
from exporter.records import SIGNALS, Signal

EMPTY = b""
"""An ExportTraceServiceRequest, or ExportLogsServiceRequest, without any item: OTLP allows it."""


def backends(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Send an empty request for each signal, and say what came back."""
    if is_disabled(environ):
        yield warning(
            "backends",
            "OTEL_SDK_DISABLED is true: nothing is sent",
            "Unset it to send traces and log records",
        )
        return
    try:
        endpoints = configured(environ)
    except OtlpConfigError as error:
        yield problem("backends", str(error), "Correct the variable, then restart wok-exporter")
        return
    if not endpoints:
        yield warning(
            "backends",
            "no backend is configured: nothing is sent",
            "Set OTEL_EXPORTER_OTLP_ENDPOINT in /etc/default/wok-exporter, such as http://127.0.0.1:4318, then restart"
            " wok-exporter. Metrics do not need it",
        )
        return
    with ThreadPoolExecutor(len(endpoints)) as threads:
        yield from threads.map(lambda signal: _asked(signal, environ, endpoints[signal]), endpoints)
    for signal in SIGNALS:
        if signal not in endpoints:
            yield ok(signal, "not sent: no endpoint, or switched off")


def _asked(signal: Signal, environ: Mapping[str, str], endpoint: str) -> Finding:
    try:
        protocol = read_settings(signal, environ).protocol
        sender = make_sender(signal, environ)
    except OtlpConfigError as error:
        return problem(signal, str(error), "Correct the variable, then restart wok-exporter")
    try:
        answer = sender.send(EMPTY)
    finally:
        sender.close()
    return _judged(signal, f"{endpoint} ({protocol})", answer)


def _judged(signal: Signal, where: str, answer: Answer) -> Finding:
    if answer.kind in ("accepted", "partial"):
        return ok(signal, f"{where} accepts an empty request")
    message = f': "{answer.message}"' if answer.message else ""
    remedy = remedy_of(answer.reason)
    return problem(
        signal,
        f"{where} {symptom_of(answer.reason)} ({answer.reason}){message}",
        remedy[0].upper() + remedy[1:],
    )
