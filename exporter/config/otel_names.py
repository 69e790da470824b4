"""Which OTEL_* variables have an effect here, and warnings about the others: most are typing
errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from opentelemetry import environment_variables as api
from opentelemetry.sdk import environment_variables as sdk

_OTLP = (
    *("ENDPOINT", "PROTOCOL", "HEADERS", "COMPRESSION", "TIMEOUT", "INSECURE"),
    *("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"),
)
USED = frozenset(
    {f"OTEL_EXPORTER_OTLP_{signal}{option}" for signal in ("", "TRACES_", "LOGS_") for option in _OTLP}
    | {api.OTEL_TRACES_EXPORTER, api.OTEL_LOGS_EXPORTER, sdk.OTEL_SDK_DISABLED}
    | {sdk.OTEL_RESOURCE_ATTRIBUTES, sdk.OTEL_SERVICE_NAME}
)
_OF_THE_SDK = frozenset(name for module in (api, sdk) for name in vars(module) if name.startswith("OTEL_"))
_OF_OTHER_LANGUAGES = re.compile(
    r"OTEL_(EXPORTER_(ZIPKIN|JAEGER|PROMETHEUS)_\w+|METRIC_EXPORT_\w+|METRICS_EXEMPLAR_FILTER|LOG_LEVEL"
    r"|LOGRECORD_\w+|ENTITIES|(EXPERIMENTAL_)?CONFIG_FILE|SEMCONV_\w+|PYTHON_\w+)"
)
"""Variables that the specification defines and the Python SDK does not know. Other programs on the
host may need them; here they have no effect.
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
        if name in _OF_THE_SDK or _OF_OTHER_LANGUAGES.fullmatch(name):
            continue
        near = get_close_matches(name.upper(), sorted(USED), 1, NEAR)
        remedy = f"did you mean {near[0]}?" if near else "it has no effect"
        named = name if name.isprintable() else ascii(name)
        yield f"{named}: unknown variable: {remedy}"
