"""Prometheus for a fleet, for real: it finds an exporter by the file of a host, scrapes it with TLS and a password, and writes to a second one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from exporter.serve.auth import hash_password
from tests.e2e.servers import prometheus, until
from tests.e2e.wok import Wok
from tests.program import ROOT, SAME, environ, free_port, running
from tests.sink import make_certificates

SECONDS = 60.0
PASSWORD = "a password of the scrapes"


def test_a_host_is_found_scraped_and_handed_on(tmp_path: Path) -> None:
    """A target file that appears becomes a host that is up, in the store too, under its name; gone, it goes."""
    fleet = tmp_path / "fleet/prometheus"
    shutil.copytree(ROOT / "deploy/fleet/prometheus", fleet)
    shutil.copytree(ROOT / "deploy/prometheus", fleet / "rules")
    (fleet / "targets/example.json").unlink()
    certificates = make_certificates(fleet / "tls")
    (fleet / "tls/scrape-password").write_text(PASSWORD)
    (tmp_path / "auth").write_text(f"prometheus:{hash_password(PASSWORD)}\n")
    (tmp_path / "auth").chmod(0o600)
    (tmp_path / "store").mkdir()
    store_config = tmp_path / "store/prometheus.yml"
    store_config.write_text("global: {}\n")
    wok = Wok(tmp_path / "wok.log")
    wok.end(wok.clone("web1"), failed=True)
    port = free_port()  # the exporter's own words would do, but it is behind TLS
    with (
        prometheus(tmp_path / "store", store_config, "--web.enable-remote-write-receiver") as store,
        running(
            "run", "--log", wok.log, "--state", tmp_path / "state", "--listen", f"127.0.0.1:{port}", *SAME,
            "--tls-certificate", certificates.server, "--tls-key", certificates.server_key,
            "--auth-file", tmp_path / "auth",
            said=tmp_path / "said", env=environ(),
        ) as exporter,
    ):  # fmt: skip
        exporter.wait_for("serving https")
        text = (fleet / "prometheus.yml").read_text(encoding="utf-8")
        # Nothing but addresses and the pace.
        for old, new in (
            ("http://metrics:9090", store.url),
            ("scrape_interval: 30s", "scrape_interval: 1s"),
            ("scrape_timeout: 10s", "scrape_timeout: 1s"),
        ):
            assert old in text
            text = text.replace(old, new)
        (fleet / "prometheus.yml").write_text(text)
        with prometheus(fleet, fleet / "prometheus.yml") as server:
            target = [{"targets": [f"127.0.0.1:{port}"], "labels": {"site": "here"}}]
            path = fleet / "targets/host.json"
            path.write_text(json.dumps(target))

            def up(at: str) -> list[str]:
                answer = (server if at == "here" else store).get("/api/v1/query", query="up")["data"][
                    "result"
                ]
                return [
                    f"{one['metric']['instance']} {one['metric']['site']} {one['value'][1]}" for one in answer
                ]

            until(lambda: up("here") == ["127.0.0.1 here 1"], SECONDS, lambda: server.get("/api/v1/targets"))
            failed = 'wok_tasks_finished_total{instance="127.0.0.1",outcome="failure",operation="vms.clone"}'
            until(
                lambda: (
                    [one["value"][1] for one in store.get("/api/v1/query", query=failed)["data"]["result"]]
                    == ["1"]
                ),
                SECONDS,
                lambda: server.said[-2000:],
            )
            assert up("there") == ["127.0.0.1 here 1"]
            labels = store.get("/api/v1/query", query="up")["data"]["result"][0]["metric"]
            assert (labels["shard"], labels["replica"]) == ("0", "a")
            path.unlink()
            until(
                lambda: up("here") == [] and up("there") == [], SECONDS, lambda: server.get("/api/v1/targets")
            )
