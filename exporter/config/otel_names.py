"""Which OTEL_* variables have an effect here, and warnings about the others: most are typing
errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

_OTLP = (
    *("ENDPOINT", "PROTOCOL", "HEADERS", "COMPRESSION", "TIMEOUT", "INSECURE"),
    *("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"),
)
USED = frozenset(
    {f"OTEL_EXPORTER_OTLP_{signal}{option}" for signal in ("", "TRACES_", "LOGS_") for option in _OTLP}
    | {"OTEL_TRACES_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_SDK_DISABLED"}
    | {"OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME"}
)
STANDARD = re.compile(
    r"OTEL_(METRICS_EXPORTER|EXPORTER_OTLP_METRICS_\w+|EXPORTER_(PROMETHEUS|ZIPKIN|JAEGER)_\w+|PROPAGATORS"
    r"|TRACES_SAMPLER(_ARG)?|(BSP|BLRP)_\w+|METRIC_EXPORT_\w+|METRICS_EXEMPLAR_FILTER|LOG_LEVEL"
    r"|(SPAN|EVENT|LINK|LOGRECORD|ATTRIBUTE)_\w+|ENTITIES|(EXPERIMENTAL_)?CONFIG_FILE|SEMCONV_\w+|PYTHON_\w+)"
)
"""Variables that OpenTelemetry defines and other programs on the host may need; here they have no
effect.
"""
NEAR = 0.88
"""The names are long and begin alike: only a few letters may differ."""


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each OTEL_* variable that nobody defines, with the nearest one that has
    an effect.
    """
    for name in sorted(environ):
        if not name.upper().startswith("OTEL_") or name in USED or not environ[name]:
            continue
        near = get_close_matches(name.upper(), sorted(USED), 1, NEAR)
        if near and not STANDARD.fullmatch(name):
            yield f"{name}: unknown variable: did you mean {near[0]}?"
        elif not STANDARD.fullmatch(name):
            yield f"{name}: unknown variable: it has no effect"
