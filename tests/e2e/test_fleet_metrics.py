"""Prometheus for a fleet, for real: it finds an exporter by the file of a host, scrapes it with TLS and a password, and writes to a second one; it watches the collectors."""

from __future__ import annotations

import json
import resource
import shutil
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from exporter.http.auth import hash_password
from tests.dashboards import rules, selectors
from tests.e2e.gateways import gateway, measured, sampler
from tests.e2e.servers import Server, prometheus, until
from tests.e2e.test_fleet import replay, write
from tests.e2e.wok import Wok
from tests.program import ROOT, SAME, environ, free_port, running
from tests.sink import Reply, Sink, make_certificates
from tests.test_rules import COLLECTOR_LABELS, COLLECTORS, TARGET_LABELS

SECONDS = 60.0
PASSWORD = "a password of the scrapes"
UP = 'up{job="wok"}'
FULL_BYTES = 300_000
"""A queue of so many bytes is soon full."""
DISK_BYTES = 131_072
"""A file of a queue must not grow beyond this: as if the disk were full."""
MEMORY_MIB = 2
"""A collector's own heap is larger."""


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
                answer = (server if at == "here" else store).get("/api/v1/query", query=UP)["data"]["result"]
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
            labels = store.get("/api/v1/query", query=UP)["data"]["result"][0]["metric"]
            assert (labels["shard"], labels["replica"]) == ("0", "a")
            path.unlink()
            until(
                lambda: up("here") == [] and up("there") == [], SECONDS, lambda: server.get("/api/v1/targets")
            )


def series(server: Server, expression: str) -> list[Any]:
    """Return what an expression gives now."""
    return list(server.get("/api/v1/query", query=expression)["data"]["result"])


def ever(server: Server, name: str, begin: float) -> list[Any]:
    """Return the series of a selector that were there at any time."""
    found = server.get(
        "/api/v1/query_range", query=name, start=f"{begin}", end=f"{time.time() + 1}", step="1"
    )
    return list(found["data"]["result"])


def watching(folder: Path, gateways: list[int], samplers: list[int]) -> Path:
    """Write the committed configuration with the collectors of a test, a scrape a second, and nobody to tell."""
    content = yaml.safe_load((ROOT / "deploy/fleet/prometheus/prometheus.yml").read_text("utf-8"))
    jobs = {job["job_name"]: job for job in content["scrape_configs"]}
    for name, ports in (("wok-gateway", gateways), ("wok-sampler", samplers)):
        jobs[name]["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    content["scrape_configs"] = [jobs["wok-gateway"], jobs["wok-sampler"]]
    content["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    del content["alerting"], content["remote_write"]
    shutil.copy(COLLECTORS, folder)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_alerts_of_the_collectors_see_what_real_ones_say(collector_program: Path, tmp_path: Path) -> None:
    """Everything that the collectors' rules read is said by real collectors to whom it happens, and the expression of each alert then holds."""
    certificates = make_certificates(tmp_path / "certificates")
    log = tmp_path / "user-requests.data"
    write(log, requests=2_000, per_second=30.0)
    with ExitStack() as stack:
        tempo, loki = stack.enter_context(Sink("grpc")), stack.enter_context(Sink())
        tier = partial(sampler, collector_program, certificates=certificates)
        entrance = partial(gateway, collector_program, certificates=certificates)
        nobody = free_port()
        good = stack.enter_context(tier(folder=tmp_path / "good", to=tempo.port))
        full = stack.enter_context(tier(folder=tmp_path / "full", to=nobody, queue_bytes=FULL_BYTES))
        torn = stack.enter_context(tier(folder=tmp_path / "torn", to=nobody))
        first, second, third = (
            stack.enter_context(entrance(folder=tmp_path / name, samplers=[to.port], loki=loki.endpoint))
            for name, to in (("first", good), ("second", full), ("third", torn))
        )
        small = stack.enter_context(
            entrance(folder=tmp_path / "small", samplers=[nobody], loki=loki.endpoint, memory_mib=MEMORY_MIB)
        )
        until(lambda: "Memory usage is above" in small.server.said, SECONDS)
        gateways = [first.metrics_port, second.metrics_port, third.metrics_port, small.metrics_port]
        samplers = [good.metrics_port, full.metrics_port, torn.metrics_port]
        config = watching(tmp_path, gateways, samplers)

        # Two gateways take something and hand it on. Then Tempo and Loki refuse for good.
        replay(log, first.environ())
        until(lambda: bool(tempo.spans()) and bool(loki.logs()), SECONDS)
        replay(log, second.environ())
        until(lambda: measured(full.metrics_port, "otelcol_exporter_queue_size") > FULL_BYTES / 2, SECONDS)
        server = stack.enter_context(prometheus(tmp_path, config))
        begin = time.time()
        holds = {rule.name: rule.expression for rule in rules([COLLECTORS])}
        until(lambda: len(series(server, "up == 1")) == 7, SECONDS, lambda: series(server, "up"))
        for alert in ("Down", "Refusing", "RecordsRejected", "SpansDropped"):
            assert series(server, holds[f"WokCollector{alert}"]) == [], alert

        tempo.judge = lambda _: Reply(code="INVALID_ARGUMENT", message="no")
        loki.judge = lambda _: Reply(status=400)
        write(log, requests=2_100, per_second=29.0)
        replay(log, first.environ())
        resource.prlimit(torn.server.process.pid, resource.RLIMIT_FSIZE, (DISK_BYTES, DISK_BYTES))
        replay(log, third.environ())
        # An exporter that goes on trying, where there is no memory; and a gateway whose disk is full.
        resource.prlimit(second.server.process.pid, resource.RLIMIT_FSIZE, (DISK_BYTES, DISK_BYTES))
        for place in (small, second):
            state = place.server.log.with_name("state")
            stack.enter_context(
                running(
                    "run", "--log", log, "--state", state, "--listen", "127.0.0.1:0", *SAME,
                    said=state.with_name("said"), env=environ(**place.environ()),
                )
            )  # fmt: skip
        missing = set(holds) - {"WokCollectorDown"}
        until(
            lambda: all(series(server, holds[name]) for name in missing),
            SECONDS,
            lambda: [name for name in missing if not series(server, holds[name])],
        )
        good.server.process.kill()
        until(lambda: bool(series(server, holds["WokCollectorDown"])), SECONDS)

        read = {one.text for rule in rules([COLLECTORS]) for one in selectors(rule.expression)}
        assert [text for text in sorted(read) if not ever(server, text, begin)] == []
        said = {name: ever(server, name, begin) for name in COLLECTOR_LABELS}
        labels = {
            name: {label for one in found for label in one["metric"]} - {"__name__", *TARGET_LABELS}
            for name, found in said.items()
        }
        assert labels == COLLECTOR_LABELS
        lost = series(server, holds["WokCollectorSpansDropped"])
        assert [one["metric"]["instance"] for one in lost] == [f"127.0.0.1:{torn.metrics_port}"]
        groups = server.get("/api/v1/rules")["data"]["groups"]
        assert [rule["name"] for group in groups for rule in group["rules"]] == list(holds)
