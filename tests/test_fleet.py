"""The fleet's configuration: discovery and shards, redaction in the gateways, and the sizing."""

from __future__ import annotations

import http.server
import json
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from exporter.config.options import CONFIG_FILE, OPTIONS
from exporter.deliver.backoff import BACKOFF_SECONDS_MAX
from exporter.parse.redact import REDACTED
from tests.program import installed

FLEET = Path(__file__).parents[1] / "deploy/fleet"
PROMETHEUS = FLEET / "prometheus/prometheus.yml"
ATTRIBUTES = Path(__file__).parents[1] / "docs/attributes.md"
SIZING = FLEET / "README.md"
HOSTS = [f"kvm{i:03}.example.net" for i in range(200)]


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def discovered(config: Path) -> dict[str, dict[str, str]]:
    """Return the labels of the targets that Prometheus would scrape, by address."""
    done = promtool("check", "service-discovery", "--timeout=500ms", config, "wok")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("[") :])
    return {one["discoveredLabels"]["__address__"]: one["labels"] for one in found if one["labels"]}


@contextmanager
def inventory(answer: bytes) -> Iterator[int]:
    """Serve a list of targets like an inventory, and yield the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def inputs() -> dict[str, float]:
    """Return the inputs of the sizing by name."""
    text = SIZING.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.,]+) \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
    return {name: float(value.replace(",", "")) for name, value in rows}


def test_promtool_accepts_the_configuration_with_its_rules_and_targets(tmp_path: Path) -> None:
    """Promtool accepts the committed file, its rules, and the example of a target file."""
    folder = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS.parent, folder)
    shutil.copytree(FLEET.parent / "prometheus", folder / "rules")
    (folder / "tls").mkdir()
    for name in ("ca.pem", "scrape-password"):
        (folder / "tls" / name).touch()
    done = promtool("check", "config", folder / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert "4 rule files found" in done.stdout
    assert set(discovered(folder / "prometheus.yml")) == {"kvm01.example.net:10965"}


def test_every_host_is_scraped_by_one_shard_under_its_name(tmp_path: Path) -> None:
    """Four servers scrape about a quarter of 200 hosts each, every host once and under its name."""
    (tmp_path / "targets").mkdir()
    for name in HOSTS:
        target = [{"targets": [f"{name}:10965"], "labels": {"site": "example"}}]
        (tmp_path / "targets" / f"{name}.json").write_text(json.dumps(target))
    found: list[str] = []
    for shard in range(4):
        content = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))
        *_, modulus, keep = content["scrape_configs"][0]["relabel_configs"]
        assert (modulus["modulus"], keep["regex"]) == (1, "0")
        modulus["modulus"], keep["regex"] = 4, str(shard)
        config = tmp_path / "prometheus.yml"
        config.write_text(yaml.safe_dump(content | {"rule_files": []}))
        share = discovered(config)
        assert len(share) in range(30, 71)
        assert all(address == f"{labels['instance']}:10965" for address, labels in share.items())
        assert {labels["site"] for labels in share.values()} == {"example"}
        found += (labels["instance"] for labels in share.values())
    assert sorted(found) == HOSTS


def test_the_other_discovery_that_stands_in_a_comment_works(tmp_path: Path) -> None:
    """With the commented lines instead of the files, discovery over HTTP works."""
    text = PROMETHEUS.read_text(encoding="utf-8")
    text = re.sub(r"    file_sd_configs:\n.*\n", "", text)
    block = re.compile(r"    #http_sd_configs:\n(?:    #  .*\n)+")
    text = block.sub(lambda found: found[0].replace("    #", "    "), text)
    answer = json.dumps([{"targets": [f"{name}:10965" for name in HOSTS]}])
    with inventory(answer.encode()) as port:
        text, count = re.subn(r"https://inventory\.example\.net/", f"http://127.0.0.1:{port}/", text)
        assert count == 1
        config = tmp_path / "prometheus.yml"
        config.write_text(text)
        assert {labels["instance"] for labels in discovered(config).values()} == set(HOSTS)


def test_the_second_fence_lets_everything_of_ours_pass() -> None:
    """The gateways mask none of our attributes, and nothing that we have already redacted."""
    content = yaml.safe_load((FLEET / "collector/gateway.yaml").read_text(encoding="utf-8"))
    fence = content["processors"]["redaction"]
    keys = re.findall(r"^\| `([\w.]+)` \|", ATTRIBUTES.read_text(encoding="utf-8"), re.MULTILINE)
    assert "wok.task.outcome" in keys
    keys += ["service.name", "service.namespace", "service.instance.id", "host.name", "host.id"]
    masked = [re.compile(pattern) for pattern in fence["blocked_key_patterns"]]
    assert [key for key in keys if any(pattern.search(key) for pattern in masked)] == []
    assert any(pattern.search("db.password") for pattern in masked)
    values = [re.compile(pattern) for pattern in fence["blocked_values"]]
    left = (
        f"password={REDACTED}",
        f"{{u'passwd': u'{REDACTED}'}}",
        f'{{"secret": "{REDACTED}"}}',
        f"Authorization: {REDACTED}",
        f"http://{REDACTED}@host/",
        "http://[::1]:8001/plugins/kimchi/vms@x",
        "/plugins/kimchi/vms/token",
    )
    assert [text for text in left if any(pattern.search(text) for pattern in values)] == []
    assert any(pattern.search("password=x") for pattern in values)


def test_the_sizing_is_computed_as_it_says() -> None:
    """Every figure of the sizing is the result of its formula, to two digits."""
    text = SIZING.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`(\w+)`)? *\| ([^|`]+) \| `([^`]+)` \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) > 15
    wrong = []
    for column, hosts in enumerate((10, 1_000, 100_000)):
        names: dict[str, float] = {"hosts": hosts, **inputs()}
        for name, what, formula, figures in rows:
            value = float(eval(formula, {"ceil": math.ceil}, names))
            names[name] = value
            shown = f"{float(f'{value:.2g}'):,.6f}".rstrip("0").rstrip(".")
            if figures.split(" | ")[column] != shown:
                wrong.append(f"{what}, {hosts} hosts: {shown}")
    assert wrong == []


def test_the_sizing_begins_with_what_is_in_force() -> None:
    """The sizing's inputs from configuration and code match them."""
    known = inputs()
    prometheus = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))
    assert prometheus["global"]["scrape_interval"] == f"{known['scrape_seconds']:.0f}s"
    sampler = (FLEET / "collector/sampler.yaml").read_text(encoding="utf-8")
    assert f"${{env:SAMPLER_PERCENT:-{known['kept_share'] * 100:.0f}}}" in sampler
    assert known["backoff_seconds"] == BACKOFF_SECONDS_MAX
    journal = OPTIONS["journal_bytes_max"]
    assert known["journal_bytes"] == journal.read(journal.default)


def test_the_role_writes_where_the_unit_reads() -> None:
    """The Ansible role writes the files that the unit and the program read."""
    tasks = (FLEET / "ansible/roles/wok_exporter/tasks/present.yml").read_text(encoding="utf-8")
    unit = (FLEET.parent / "systemd/wok-exporter.service").read_text(encoding="utf-8")
    environment = re.search(r"^EnvironmentFile=-(\S+)$", unit, re.MULTILINE)
    assert environment is not None
    assert f"dest: {environment[1]}\n" in tasks
    assert f"dest: /{CONFIG_FILE}\n" in tasks
