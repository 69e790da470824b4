"""Rules for Prometheus, routes of Alertmanager and runbooks, checked with promtool and amtool."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.cli import COMMANDS
from exporter.command.parser import parse
from exporter.metrics.definitions import FAMILIES
from tests.program import installed

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy/prometheus"
COLLECTORS = ROOT / "deploy/fleet/prometheus/wok-collectors.rules.yaml"
FLEET_README = COLLECTORS.parents[1] / "README.md"
FILES = [*sorted(PROMETHEUS.glob("*.rules.yaml")), COLLECTORS]
ALERTMANAGER = ROOT / "deploy/alertmanager"
RUNBOOKS = ROOT / "docs/runbooks"
CASES = sorted((ROOT / "tests/rules").glob("*.test.yaml"))
TARGET_LABELS = {"job", "instance"}
"""Labels that Prometheus adds to every series."""


def asked(name: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end."""
    command = [installed(name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


RULES: list[dict[str, Any]] = [
    rule for path in FILES for group in loaded(path)["groups"] for rule in group["rules"]
]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = {rule["record"] for rule in RULES if "record" in rule}
COLLECTOR_LABELS = {
    f"otelcol_{name}": set(labels.split())
    for name, labels in {
        "receiver_refused_spans": "receiver transport",
        "receiver_refused_log_records": "receiver transport",
        "processor_memory_limiter_refused_spans": "processor",
        "processor_memory_limiter_refused_log_records": "processor",
        "exporter_queue_size": "exporter data_type",
        "exporter_queue_capacity": "exporter data_type",
        "exporter_enqueue_failed_spans": "exporter",
        "exporter_enqueue_failed_log_records": "exporter",
        "exporter_sent_spans": "exporter server_address server_port",
        "exporter_sent_log_records": "exporter server_address server_port url_path",
        "exporter_send_failed_spans": "exporter server_address server_port",
        "exporter_send_failed_log_records": "exporter server_address server_port url_path",
    }.items()
}
"""Labels of the collectors' series that rules and pages use.

tests/e2e/test_fleet_metrics.py compares them with a real collector.
"""
BACKEND_LABELS = {"tempo_discarded_spans_total": {"reason", "tenant"}}
"""As documented for Tempo 2.10. There is no Tempo here to compare with."""
LABELS = (
    COLLECTOR_LABELS
    | BACKEND_LABELS
    | {
        family.name + suffix: {*family.labels, *(["le"] if suffix == "_bucket" else [])}
        for family in FAMILIES
        for suffix in (("_bucket", "_sum", "_count") if family.type == "histogram" else ("",))
    }
)
"""The labels of every scraped series, by name."""


EXTERNAL_LABELS = {"wok_runbooks", "wok_page", "wok_grafana", "wok_jaeger"}
"""Labels that an administrator may set in Prometheus, for the links in alerts."""
LINKS = ("runbook_url", "page_url", "trace_url", "dashboard_url")
SUMMARY_CHARACTERS_MAX = 120
"""A summary is the subject of a mail, and contains host and operation."""
PERIODS_SECONDS = {"s": 1, "m": 60}
FRESH_SECONDS = 300
"""How long Prometheus uses a sample (default of `--query.lookback-delta`)."""


def unknown_in(expression: str) -> set[str]:
    """Return the metrics, and the labels of selectors, that no exporter, collector or recording
    rule has.
    """
    found = set()
    bare = re.sub(r'"[^"]*"', '""', expression)
    for name, selector in re.findall(
        r"((?:[a-z_]*:?wok|otelcol|tempo)_[a-z0-9_]+(?::[a-z0-9_]+)?)(?:\{([^}]*)\})?", bare
    ):
        if name in RECORDS:
            continue
        labels = {part.strip() for part in re.findall(r"([a-z_ ]+)[=!~]+", selector)}
        found |= {name} - LABELS.keys() | (labels - LABELS.get(name, set()) - TARGET_LABELS)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_promtool_accepts_the_rules(path: Path) -> None:
    """Promtool accepts every rule file."""
    checked = asked("promtool", "check", "rules", path)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_recorded_series_are_never_missing_between_two_evaluations() -> None:
    """Every group is evaluated twice before a sample is stale, so that no alert resolves by
    mistake.
    """
    intervals = [group["interval"] for path in FILES for group in loaded(path)["groups"]]

    assert [one for one in intervals if 2 * int(one[:-1]) * PERIODS_SECONDS[one[-1]] >= FRESH_SECONDS] == []


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_the_rules_do_as_their_cases_say(path: Path) -> None:
    """Promtool's test runner finds each alert and recorded series as expected."""
    tested = asked("promtool", "test", "rules", path.name, cwd=path.parent)

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    """Every alert has a case in which it fires with its complete text, and one in which it does
    not.
    """
    fires: set[str] = set()
    silent: set[str] = set()
    for path in CASES:
        for case in loaded(path)["tests"]:
            for moment in case.get("alert_rule_test", []):
                (fires if moment["exp_alerts"] else silent).add(moment["alertname"])

    assert (fires, silent) == (set(ALERTS), set(ALERTS))


def test_every_recorded_series_is_expected_in_a_case() -> None:
    """Every recording rule has a case that checks its value."""
    expected = {
        name
        for path in CASES
        for case in loaded(path)["tests"]
        for moment in case.get("promql_expr_test", [])
        if moment["exp_samples"]
        for name in RECORDS
        if name in moment["expr"]
    }

    assert expected == RECORDS


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_the_cases_are_about_series_that_an_exporter_has(path: Path) -> None:
    """The input of every case has metrics and labels that an exporter or a collector really has."""
    for case in loaded(path)["tests"]:
        for series in case["input_series"]:
            text = series["series"].replace(", ", ",") + " 0\n"
            (sample,) = (s for family in text_string_to_metric_families(text) for s in family.samples)
            labels = set(sample.labels) - TARGET_LABELS

            assert set(sample.labels) >= TARGET_LABELS, text
            if sample.name in COLLECTOR_LABELS:
                # which of them depends on the exporter's kind
                assert labels <= LABELS[sample.name], text
            elif sample.name != "up" and sample.name not in RECORDS:
                assert labels == LABELS[sample.name], text


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_name_what_there_is(rule: dict[str, Any]) -> None:
    """Every metric and label in a rule and its texts exists in an exporter, a
    collector or a rule.
    """
    texts = [rule["expr"], rule.get("annotations", {}).get("description", "")]

    assert set().union(*map(unknown_in, texts)) == set()


def test_a_metric_that_nobody_has_would_be_found() -> None:
    """The check of names detects a wrong metric, a wrong recorded series and a wrong label."""
    wrong = 'wok_task_finished_total + app:wok_none:sum + wok_tasks_started_total{job="x", outcome="y"}'
    wrong += " + otelcol_exporter_sent_spans_total"
    unknown = {"wok_task_finished_total", "app:wok_none:sum", "outcome", "otelcol_exporter_sent_spans_total"}

    assert unknown_in(wrong) == unknown


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alerts_say_how_bad_what_and_where(name: str) -> None:
    """Every alert has a severity, a summary with host and operation, a
    description, and a runbook.
    """
    alert = ALERTS[name]
    notes = alert["annotations"]

    assert re.fullmatch(r"Wok(Task|Log|Exporter|Collector|Tempo)[A-Z]?\w+", name)
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert notes.keys() - set(LINKS) == {"summary", "description"}
    assert "runbook_url" in notes
    if (path := notes.get("dashboard_url")) is not None:
        uid = re.search(r"}}/d/([a-z-]+)", path)
        assert uid is not None
        assert (ROOT / f"deploy/grafana/dashboards/{uid[1]}.json").exists()
    assert len(notes["summary"]) <= SUMMARY_CHARACTERS_MAX
    assert not notes["summary"].endswith(".")
    if "$labels.instance" in notes["description"]:
        assert "{{ $labels.instance }}" in notes["summary"]
    if "$labels.operation" in notes["description"]:
        assert "{{ $labels.app }} {{ $labels.operation }}" in notes["summary"]
    assert re.search(r"{{ \$labels\.(instance|job) }}", notes["description"])
    assert set(re.findall(r"\w+\.md", notes["runbook_url"])) == {f"{name}.md"}
    assert [link for link in LINKS if not is_whole_or_empty(notes.get(link, "{{end}}"))] == []


def is_whole_or_empty(link: str) -> bool:
    """Return whether all of a link depends on the label that it starts with."""
    depth = 0
    for position, action in ((found.start(), found[0]) for found in re.finditer(r"{{.*?}}", link)):
        depth += bool(re.match(r"{{ *(with|range|if)\b", action)) - bool(re.match(r"{{ *end\b", action))
        if depth == 0 and link[position + len(action) :].strip():
            return False
    return depth == 0 or link == "{{end}}"


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_recorded_series_are_named_by_level_metric_and_operation(name: str) -> None:
    """Every recorded series is named level:metric:operations, as Prometheus recommends."""
    assert re.fullmatch(r"(instance_)?(app|app_operation|signal):wok_[a-z_]+:[a-z0-9_]+", name)


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(*pages: Path) -> Iterator[list[str]]:
    """Yield all command lines of some pages, split as a shell does."""
    for page in pages:
        for block in blocks(page.read_text("utf-8"), "sh"):
            yield from map(shlex.split, block.splitlines())


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    """Each alert has one runbook, with its title, its severity and the common sections."""
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(ALERTS)
    for name, alert in ALERTS.items():
        text = (RUNBOOKS / f"{name}.md").read_text("utf-8")
        parts = re.findall(r"^## (.+)$", text, re.MULTILINE)

        assert text.startswith(f"# {name}\n\nSeverity: {alert['labels']['severity']}. ")
        assert parts[:3] == ["Diagnosis", "Remedy", "Silencing"]
        assert parts[3:]
        assert set(parts[3:]) <= {"What this alert does not detect", "Data loss"}


def test_queries_of_the_runbooks_are_valid(tmp_path: Path) -> None:
    """Prometheus parses every query of a runbook, and its metrics exist."""
    queries = [
        query for page in sorted(RUNBOOKS.glob("*.md")) for query in blocks(page.read_text(), "promql")
    ]
    rules = [{"record": f"query:{number}:made", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), "utf-8")
    checked = asked("promtool", "check", "rules", path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert len(queries) > len(ALERTS)
    assert set().union(*map(unknown_in, queries)) == set()


def test_commands_of_the_runbooks_are_accepted() -> None:
    """Commands in runbooks are accepted, and URLs and services exist."""
    seen = set()
    for words in commands(*RUNBOOKS.glob("*.md")):
        seen.add(words[0])
        match words:
            case ["wok-exporter", *arguments]:
                parse(COMMANDS, arguments)
            case ["curl", "-sS", url]:
                # the exporter's; the health of a gateway and of a sampler
                pages = ("10965/readyz", "10965/healthz", "13133/", "13134/")
                assert url in {f"http://127.0.0.1:{page}" for page in pages}
            case ["systemctl", "status" | "restart" | "reload", unit] | ["journalctl", "-u", unit, *_]:
                assert unit in {"wokd", "otelcol"} or (ROOT / f"deploy/systemd/{unit}.service").exists()
            case ["sudo", "-u", user, "head", *_]:
                assert f"u {user} " in (ROOT / "deploy/systemd/wok-exporter.sysusers").read_text()
            case _:
                assert words[0] in {"grep", "ls", "df"}, words

    assert {"wok-exporter", "curl", "systemctl", "journalctl"} <= seen


def test_links_of_the_pages_lead_somewhere() -> None:
    """Every relative link of a runbook names a file, and metrics in the text exist."""
    pages = [*RUNBOOKS.glob("*.md"), PROMETHEUS / "README.md", ALERTMANAGER / "README.md", FLEET_README]
    for page in pages:
        text = page.read_text("utf-8")
        broken = [
            target
            for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
            if not (page.parent / target).exists()
        ]
        found = re.findall(r"`((?:wok|otelcol|tempo)_[a-z_]+(?:\{[^`]*\})?)`", text)
        named = " ".join(set(found) - EXTERNAL_LABELS)

        assert (broken, unknown_in(named)) == ([], set()), page.name


def test_the_prometheus_of_the_readme_is_a_configuration(tmp_path: Path) -> None:
    """Prometheus loads the example configuration of the README with these rules."""
    first, second = blocks((PROMETHEUS / "README.md").read_text("utf-8"), "yaml")
    (tmp_path / "rules").mkdir()
    for path in PROMETHEUS.glob("*.rules.yaml"):
        shutil.copy(path, tmp_path / "rules")
    config = tmp_path / "prometheus.yml"
    config.write_text(first + second, "utf-8")
    checked = asked("promtool", "check", "config", config)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    alerts = sum(len(group["rules"]) for group in loaded(PROMETHEUS / "wok-alerts.rules.yaml")["groups"])
    assert f"{alerts} rules found" in checked.stdout
    assert f"{alerts} alerts" in (PROMETHEUS / "README.md").read_text("utf-8")


def test_amtool_accepts_the_configuration() -> None:
    """Amtool accepts the example."""
    checked = asked("amtool", "check-config", ALERTMANAGER / "alertmanager.yml")

    assert checked.returncode == 0, checked.stdout + checked.stderr


def rendered(template: str, annotations: dict[str, str], folder: Path, labels: str = "WokTaskFailed") -> str:
    """Return what Alertmanager makes of one alert with a template of the example."""
    alert = {
        "status": "firing",
        "labels": {"alertname": labels},
        "annotations": annotations,
        "generatorURL": "http://prometheus/graph?g0.expr=x",
    }
    data = folder / "alert.json"
    content = {"status": "firing", "groupLabels": {"alertname": labels}, "alerts": [alert]}
    data.write_text(json.dumps(content), "utf-8")
    done = asked(
        "amtool", "template", "render", f"--template.glob={ALERTMANAGER / '*.tmpl'}",
        f"--template.data={data}", f'--template.text={{{{ template "{template}" . }}}}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_message_has_the_links_that_there_are(tmp_path: Path) -> None:
    """A message shows each link of an alert, none that is empty, and the runbook in any case."""
    said = {"summary": "kimchi vms.clone failed on kvm01", "description": "Error code: KCHVM0035E."}
    links = {link: f"https://{link.replace('_', '-')}.example/?a=1&b=2" for link in LINKS}
    whole = rendered("wok.text", said | links, tmp_path)
    bare = rendered("wok.text", said | dict.fromkeys(LINKS, ""), tmp_path)

    assert [link for link in links.values() if link not in whole] == []
    assert rendered("wok.subject", said, tmp_path).strip() == f"[FIRING] {said['summary']}"
    assert re.findall(r"^(\w+): +(\S+)$", bare, re.MULTILINE) == [
        ("Runbook", "/usr/share/doc/wok-exporter/docs/runbooks/WokTaskFailed.md"),
        ("Query", "http://prometheus/graph?g0.expr=x"),
    ]


def test_a_message_in_html_cannot_be_broken_by_a_name(tmp_path: Path) -> None:
    """The example sets the HTML of its mails with Alertmanager's own escaping, and has no empty link."""
    (mail,) = (
        config
        for receiver in loaded(ALERTMANAGER / "alertmanager.yml")["receivers"]
        for config in receiver.get("email_configs", [])
    )
    bare = rendered("wok.html", {"summary": "s", "description": "d", "page_url": ""}, tmp_path)

    assert mail["html"] == '{{ template "wok.html" . }}'
    assert mail["text"] == '{{ template "wok.text" . }}'
    assert re.findall(r'href="([^"]*)"', bare) == ["http://prometheus/graph?g0.expr=x"]


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alerts_reach_their_receiver(name: str) -> None:
    """Alertmanager routes critical alerts to the pager and all others to the mail."""
    severity = ALERTS[name]["labels"]["severity"]
    config = f"--config.file={ALERTMANAGER / 'alertmanager.yml'}"
    receiver = "pager" if severity == "critical" else "mail"
    tested = asked(
        "amtool", "config", "routes", "test", config, f"--verify.receivers={receiver}",
        f"alertname={name}", f"severity={severity}", "instance=kvm01:10965", "job=wok",
    )  # fmt: skip

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_alertmanager_names_alerts_that_there_are() -> None:
    """Routes, inhibitions, the maintenance silence and the pages name only existing alerts."""
    texts = [path.read_text("utf-8") for path in ALERTMANAGER.iterdir()]
    pages = [*RUNBOOKS.glob("*.md"), PROMETHEUS / "README.md", FLEET_README]
    texts += [page.read_text("utf-8") for page in pages]
    named = {
        name
        for text in texts
        for name in re.findall(r"\bWok(?:Tasks?|Log|Exporter|Collector|Tempo)[A-Z]\w+", text)
    }

    assert named == set(ALERTS)


def test_a_failed_task_waits_for_no_group_and_no_maintenance() -> None:
    """A failed task is a separate message within a second, at any time."""
    content = loaded(ALERTMANAGER / "alertmanager.yml")
    (route,) = (r for r in content["route"]["routes"] if r["matchers"] == ['alertname="WokTaskFailed"'])

    assert route["group_wait"] == "1s"
    assert {"instance", "app", "operation"} <= set(route["group_by"])
    assert "mute_time_intervals" not in route
    assert not [r for r in content["inhibit_rules"] if re.search("WokTask(Failed|sLost)", str(r))]


def test_the_script_that_silences_is_a_shell_script() -> None:
    """ShellCheck accepts the script, it is executable, and it prints its usage."""
    script = ALERTMANAGER / "silence-maintenance"
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    used = subprocess.run([script], capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout) == (0, "")
    assert os.access(script, os.X_OK)
    assert (used.returncode, used.stderr.split(" ")[0]) == (2, "usage:")
