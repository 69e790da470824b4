"""The Grafana dashboards as code: `python -m deploy.grafana` writes `dashboards/*.json`.

They use the classic dashboard format, which Grafana reads from files. The SDK prefers the newer
format, and warns about it when it is imported.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    # once imported, they have said it
    from grafana_foundation_sdk.builders import dashboard, dashboardv2beta1  # noqa: F401
