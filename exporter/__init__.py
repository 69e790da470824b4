"""wok-exporter: Wok's user request log as OpenTelemetry traces, log records and
Prometheus metrics.
"""

__version__ = "0.1.0"
