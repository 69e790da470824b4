"""The links in the annotations of the shipped alerts."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

RULES = Path(__file__).parents[1] / "deploy/prometheus/wok-alerts.rules.yaml"


def link_of(alert: str, annotation: str) -> str:
    """Return the link in an annotation of an alert, without its template expressions."""
    (rule,) = (
        rule
        for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if rule.get("alert") == alert
    )
    return re.sub(r"{{.*?}}", "", rule["annotations"][annotation])
