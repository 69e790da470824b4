"""The Grafana dashboards as code: `python -m deploy.grafana` writes `dashboards/*.json` anew.

They are in the classic form of a dashboard, which Grafana reads from files. The SDK would rather have
its successor, and says so when it is imported.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    # once imported, they have said it
    from grafana_foundation_sdk.builders import dashboard, dashboardv2beta1  # noqa: F401
