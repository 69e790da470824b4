"""The files of deploy/compose: schemas, references to each other, and access.

tests/e2e/test_compose.py runs the programs. Loki, Tempo and Grafana are not available and have no
published schema: their files are checked for documented keys and for the names that they use.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from exporter.config.options import OPTIONS
from exporter.metrics.definitions import FAMILIES
from tests import compose_files
from tests.compose_files import COMPOSE, FOLDER, ROOT
from tests.program import installed

NAMES = sorted(compose_files.services())
EXPORTER_PORT = 10965
JAEGER_PAGE_PORT = 16686
LISTENS = {
    # by their programs, where no file of ours says so
    "prometheus": {9090},
    "alertmanager": {9093},
    "grafana": {3000},
    "wok-exporter": {EXPORTER_PORT},
    "wok-demo": {EXPORTER_PORT},
}
DATA_SOURCE_TYPES = {"prometheus", "tempo", "jaeger", "loki", "alertmanager"}
KEYS = {
    # what the documentation of Loki 3.7 and of Tempo 2.10 has, as far as our files go
    "loki.yaml": {
        "": "auth_enabled server analytics common schema_config limits_config compactor",
        "server": "http_listen_port",
        "analytics": "reporting_enabled",
        "common": "instance_addr path_prefix replication_factor ring storage",
        "schema_config.configs": "from store object_store schema index",
        "limits_config": "allow_structured_metadata otlp_config reject_old_samples reject_old_samples_max_age retention_period"
        " volume_enabled",
        "limits_config.otlp_config.resource_attributes": "ignore_defaults attributes_config",
        "limits_config.otlp_config.resource_attributes.attributes_config": "action attributes",
        "compactor": "working_directory retention_enabled delete_request_store",
    },
    "tempo.yaml": {
        "": "stream_over_http_enabled server usage_report distributor ingester overrides query_frontend compactor storage",
        "overrides.defaults.ingestion": "max_traces_per_user rate_limit_bytes burst_size_bytes",
        "query_frontend.search": "max_duration",
        "storage.trace.wal": "path ingestion_time_range_slack",
        "server": "http_listen_port",
        "usage_report": "reporting_enabled",
        "distributor": "receivers",
        "ingester": "max_block_duration",
        "compactor.compaction": "block_retention",
        "storage.trace": "backend wal local",
    },
}


def mounts(service: dict[str, Any]) -> list[tuple[str, PurePosixPath, bool]]:
    """Return (source, target, read-only) of a service's mounts."""
    found = []
    for text in service.get("volumes", ()):
        source, target, *mode = text.split(":")
        found.append((source, PurePosixPath(target), mode == ["ro"]))
    return found


def listening() -> dict[str, set[int]]:
    """Return the ports at which each service listens, by its own configuration."""
    found = {name: set(ports) for name, ports in LISTENS.items()}
    for name, file in (("otelcol", "otelcol.yaml"), ("jaeger", "jaeger.yaml")):
        text = compose_files.collector_text(FOLDER / file)
        found[name] = {int(port) for port in re.findall(r"endpoint: 0\.0\.0\.0:(\d+)", text)}
        found[name] |= {int(port) for port in re.findall(r"^\s+port: (\d+)$", text, re.MULTILINE)}
    loki, tempo = (compose_files.read(FOLDER / name) for name in ("loki.yaml", "tempo.yaml"))
    found["loki"] = {loki["server"]["http_listen_port"]}
    http = tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    found["tempo"] = {tempo["server"]["http_listen_port"], int(http.rpartition(":")[2])}
    return found


def promtool(*arguments: object) -> None:
    """Run promtool, which must accept the file."""
    done = subprocess.run(
        [installed("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def schema_accepts(path: Path) -> bool:
    done = subprocess.run(
        [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode == 0


def test_the_schema_of_compose_accepts_the_stack(tmp_path: Path) -> None:
    """compose.yaml is valid by the Compose specification, and the check detects a wrong key."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(COMPOSE.read_text("utf-8").replace("read_only:", "readonly:", 1), "utf-8")

    assert schema_accepts(COMPOSE)
    assert not schema_accepts(broken)


@pytest.mark.parametrize("name", NAMES)
def test_every_service_is_confined(name: str) -> None:
    """Each service runs without privileges, on a read-only root, with bounded memory and log."""
    service = compose_files.services()[name]
    memory = {"m": 1, "g": 1024}[service["mem_limit"][-1]] * int(service["mem_limit"][:-1])
    goal = service.get("environment", {}).get("GOMEMLIMIT", "0MiB").removesuffix("MiB")

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "ownership" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name == "ownership" else "unless-stopped")
    assert {"privileged", "pid", "ipc", "devices"} & set(service) == set()
    assert service.get("network_mode") == ("none" if name == "ownership" else None)
    assert service.get("user") != "0:0" or name == "ownership"
    assert int(goal) < memory
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", NAMES)
def test_images_are_of_one_version(name: str) -> None:
    """Each image has an exact version, and our own is built from the checkout."""
    service = compose_files.services()[name]
    if "build" in service:
        assert service["image"] == "wok-exporter:local"
        context = (FOLDER / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()
    else:
        assert re.fullmatch(r"[a-z]+/[a-z-]+:v?\d+\.\d+\.\d+", service["image"])


def test_nothing_can_be_reached_from_elsewhere() -> None:
    """Every published port is on 127.0.0.1, unique, and its service listens there."""
    published = [
        (name, *port.split(":"))
        for name, service in compose_files.services().items()
        for port in service.get("ports", ())
    ]

    assert {address for _, address, _, _ in published} == {"127.0.0.1"}
    outside = [port for _, _, port, _ in published]
    assert len(set(outside)) == len(outside)
    assert [(name, port) for name, _, _, port in published if int(port) not in listening()[name]] == []


def test_no_password_is_committed() -> None:
    """The password comes from the environment without a default, and Grafana requires it."""
    environment = compose_files.services()["grafana"]["environment"]

    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith(f"${{{compose_files.PASSWORD}:?")
    assert not [name for name in environment if "ANONYMOUS" in name]


def test_what_is_mounted_is_there() -> None:
    """Every mounted file and directory of the checkout exists, is read-only, and is not empty."""
    for name, service in compose_files.services().items():
        for source, _, is_read_only in mounts(service):
            if source.startswith("."):
                path = FOLDER / source
                assert path.is_file() or (path.is_dir() and any(path.iterdir())), f"{name}: {source}"
                assert is_read_only, f"{name}: {source}"


def test_every_file_of_the_stack_is_mounted() -> None:
    """Every configuration file in deploy/compose is read by a service."""
    mounted = [
        (FOLDER / source).resolve()
        for service in compose_files.services().values()
        for source, _, _ in mounts(service)
        if source.startswith(".")
    ]
    unread = [
        path.relative_to(FOLDER)
        for path in FOLDER.rglob("*")
        if path.is_file()
        and path.name not in ("compose.yaml", "README.md", ".env")
        and not any(path == known or known in path.parents for known in mounted)
    ]

    assert unread == []


def test_volumes_are_declared_and_used() -> None:
    """Every named volume is declared and used."""
    used = {
        source
        for service in compose_files.services().values()
        for source, _, _ in mounts(service)
        if source[0] not in "./"
    }

    assert used == set(compose_files.read(COMPOSE)["volumes"])


def test_what_a_service_writes_is_kept() -> None:
    """Every directory that a configuration writes to is a volume, because the root is read-only."""
    writes = {
        "otelcol": re.findall(r"directory: (/\S+)", compose_files.collector_text(FOLDER / "otelcol.yaml")),
        "jaeger": re.findall(
            r"(?:keys|values): (/\S+)", compose_files.collector_text(FOLDER / "jaeger.yaml")
        ),
        "loki": [
            text for text in compose_files.strings(compose_files.read(FOLDER / "loki.yaml")) if text[0] == "/"
        ],
        "tempo": [
            text
            for text in compose_files.strings(compose_files.read(FOLDER / "tempo.yaml"))
            if text[0] == "/"
        ],
        "prometheus": ["/prometheus"],
        "alertmanager": ["/alertmanager"],
    }
    services = compose_files.services()
    given = set(services["ownership"]["command"][1:])
    for name, paths in writes.items():
        volumes = {target for source, target, _ in mounts(services[name]) if source[0] not in "./"}
        assert paths
        for path in paths:
            assert volumes & {PurePosixPath(path), *PurePosixPath(path).parents}, f"{name}: {path}"
        if services[name].get("user") == "10001:10001":
            assert services[name]["depends_on"] == {
                "ownership": {"condition": "service_completed_successfully"}
            }
            assert {str(target) for target in volumes} <= given
    # what is given away is the same volume at the same place
    owned = {(source, target) for source, target, _ in mounts(services["ownership"])}
    assert owned <= {mount[:2] for name in writes for mount in mounts(services[name])}


def test_commands_name_mounted_files() -> None:
    """Every configuration file in a command line or in Grafana's settings is mounted."""
    for name, service in compose_files.services().items():
        named = [
            *(argument.partition("=")[2] for argument in service.get("command", ()) if "config" in argument),
            *(text for text in service.get("environment", {}).values() if text.startswith("/etc/")),
        ]
        for text in named:
            path = PurePosixPath(text)
            source, target = next(
                (source, target)
                for source, target, _ in mounts(service)
                if target == path or target in path.parents
            )
            assert (FOLDER / source / path.relative_to(target)).is_file(), f"{name}: {text}"


def test_addresses_lead_to_who_listens() -> None:
    """Every host and port in the configurations is a service and a port at which it listens."""
    texts = [
        *compose_files.strings(yaml.safe_load(compose_files.collector_text(FOLDER / "otelcol.yaml"))),
        *compose_files.strings(compose_files.read(FOLDER / "prometheus.yml")["scrape_configs"]),
        *compose_files.strings(compose_files.read(FOLDER / "prometheus.yml")["alerting"]),
        *compose_files.strings(compose_files.services()["wok-exporter"]["environment"]),
        *(source["url"] for source in compose_files.data_sources().values()),
    ]
    named = {
        (found[1], int(found[2]))
        for text in texts
        if (found := re.match(r"(?:http://)?([a-z][a-z-]*):(\d+)(/|$)", text))
    }
    listens = listening() | {"localhost": {9090}}

    assert {host for host, _ in named} == {
        *("otelcol", "jaeger", "tempo", "loki", "prometheus", "alertmanager", "grafana", "localhost")
    }
    assert [(host, port) for host, port in named if port not in listens[host]] == []


def test_every_service_is_watched() -> None:
    """Prometheus scrapes every service, and services that can check their health do so."""
    jobs = {job["job_name"]: job for job in compose_files.read(FOLDER / "prometheus.yml")["scrape_configs"]}
    names = {name.removesuffix(".") for found in jobs["wok"]["dns_sd_configs"] for name in found["names"]}
    unchecked = {name for name, service in compose_files.services().items() if "healthcheck" not in service}

    assert (set(jobs) - {"wok"}) | names | {"ownership"} == set(NAMES)
    # the images of the first two hold nothing to ask with; the exporter's image brings its own
    # check
    assert unchecked == {"otelcol", "tempo", "ownership", "wok-exporter", "wok-demo"}


def test_exporters_are_found_by_name() -> None:
    """An exporter in a container is scraped at its port, and named as its
    service, without the dot.
    """
    (job,) = (
        job
        for job in compose_files.read(FOLDER / "prometheus.yml")["scrape_configs"]
        if job["job_name"] == "wok"
    )
    (rule,) = job["relabel_configs"]
    names = [name for found in job["dns_sd_configs"] for name in found["names"]]

    assert {found["port"] for found in job["dns_sd_configs"]} == {EXPORTER_PORT}
    assert int(OPTIONS["listen"].default.rpartition(":")[2]) == EXPORTER_PORT
    assert {re.sub(rule["regex"], r"\1", name) for name in names} == {"wok-exporter", "wok-demo"}
    # a host of targets/ keeps the name that it has there
    assert re.fullmatch(rule["regex"], "") is None


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    """Promtool accepts prometheus.yml with its mounts, also with a host in targets/hosts.yaml."""
    path = compose_files.prometheus_folder(tmp_path / "prometheus", {})
    targets = path.parent / "targets/hosts.yaml"
    targets.write_bytes((FOLDER / "targets/hosts.yaml").read_bytes())
    promtool("check", "config", path)
    example = compose_files.host_example()
    targets.write_text(yaml.safe_dump(example), "utf-8")
    promtool("check", "config", path)

    for pattern in compose_files.read(path)["rule_files"]:
        assert list(path.parent.glob(pattern)), pattern
    assert compose_files.read(FOLDER / "targets/hosts.yaml") == []
    name, _, port = example[0]["targets"][0].partition(":")
    assert int(port) == EXPORTER_PORT
    assert f"{name}:host-gateway" in compose_files.services()["prometheus"]["extra_hosts"]


@pytest.mark.parametrize("name", sorted(KEYS))
def test_loki_and_tempo_have_known_keys(name: str) -> None:
    """The files of Loki and Tempo have only documented keys, each in its place."""
    content = compose_files.read(FOLDER / name)
    for path, known in KEYS[name].items():
        part = content
        for key in filter(None, path.split(".")):
            part = part[key]
        for one in part if isinstance(part, list) else [part]:
            assert set(one) == set(known.split()), path


def test_everything_is_kept_equally_long() -> None:
    """Tempo, Jaeger and Loki delete data after the same 30 days."""
    loki = compose_files.read(FOLDER / "loki.yaml")
    tempo = compose_files.read(FOLDER / "tempo.yaml")
    jaeger = yaml.safe_load(compose_files.collector_text(FOLDER / "jaeger.yaml"))

    assert {
        loki["limits_config"]["retention_period"],
        tempo["compactor"]["compaction"]["block_retention"],
        jaeger["extensions"]["jaeger_storage"]["backends"]["disk"]["badger"]["ttl"]["spans"],
    } == {"720h"}


def test_a_stream_of_loki_is_one_application_of_one_host() -> None:
    """Loki's labels separate hosts and applications, so that no backlog is rejected because of
    another.
    """
    attributes = compose_files.read(FOLDER / "loki.yaml")["limits_config"]["otlp_config"][
        "resource_attributes"
    ]

    assert attributes["ignore_defaults"] is True
    assert attributes["attributes_config"] == [
        {"action": "index_label", "attributes": ["service.namespace", "service.name", "host.name"]}
    ]


def test_data_sources_are_the_ones_that_dashboards_expect() -> None:
    """Uids are fixed, one data source is the default, and there is one of each type."""
    sources = compose_files.data_sources()

    assert {uid: source["type"] for uid, source in sources.items()} == {
        f"wok-{kind}": kind for kind in DATA_SOURCE_TYPES
    }
    assert [uid for uid, source in sources.items() if source.get("isDefault")] == ["wok-prometheus"]


def test_data_sources_lead_to_each_other() -> None:
    """Exemplars link to traces, traces to log records and metrics, log records to traces; all
    exist.
    """
    sources = compose_files.data_sources()
    links = {
        uid: set(re.findall(r"'(?:datasourceUid|alertmanagerUid)': '([\w-]+)'", str(source)))
        for uid, source in sources.items()
    }

    assert links == {
        "wok-prometheus": {"wok-tempo", "wok-alertmanager"},
        "wok-tempo": {"wok-loki", "wok-prometheus"},
        "wok-jaeger": {"wok-loki", "wok-prometheus"},
        "wok-loki": {"wok-tempo", "wok-jaeger"},
        "wok-alertmanager": set(),
    }
    exemplars = sources["wok-prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert {one["name"] for one in exemplars} == {"trace_id"}
    # Grafana makes no query for Jaeger from an exemplar: a link to Jaeger's own page, at the port
    # that is published
    assert [one["url"] for one in exemplars if "url" in one] == [
        f"http://127.0.0.1:{JAEGER_PAGE_PORT}/trace/${{__value.raw}}"
    ]
    assert any(str(JAEGER_PAGE_PORT) in port for port in compose_files.services()["jaeger"]["ports"])
    # Grafana's own variables survive the expansion of the file
    assert [one["url"] for one in sources["wok-loki"]["jsonData"]["derivedFields"]] == [
        "${__value.raw}",
        "${__value.raw}",
    ]
    logs = sources["wok-tempo"]["jsonData"]["tracesToLogsV2"]
    assert logs["query"] == '{${__tags}} | trace_id="${__trace.traceId}"'
    labels = compose_files.read(FOLDER / "loki.yaml")["limits_config"]["otlp_config"]["resource_attributes"][
        "attributes_config"
    ][0]["attributes"]
    assert {tag["key"] for tag in logs["tags"]} <= set(labels)
    assert all(tag["value"] == tag["key"].replace(".", "_") for tag in logs["tags"])


def test_the_queries_of_traces_are_valid(tmp_path: Path) -> None:
    """The queries from a trace to metrics use existing metrics and labels, and Prometheus parses
    them.
    """
    metrics = compose_files.data_sources()["wok-tempo"]["jsonData"]["tracesToMetrics"]
    labels = {tag["value"] for tag in metrics["tags"]}
    queries = [query["query"] for query in metrics["queries"]]
    families = {family.name: family for family in FAMILIES}
    for query in queries:
        assert "$__tags" in query
        name = next(iter(re.findall(r"wok_\w+", query))).removesuffix("_bucket")
        assert labels <= set(families[name].labels)
    tags = ",".join(f'{label}="x"' for label in sorted(labels))
    rules = [{"record": f"q{n}", "expr": query.replace("$__tags", tags)} for n, query in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), "utf-8")

    promtool("check", "rules", path)


def test_rates_are_made_for_the_scrape_interval() -> None:
    """Grafana knows the scrape interval, which it needs for the shortest window of a rate."""
    jobs = compose_files.read(FOLDER / "prometheus.yml")["scrape_configs"]
    (interval,) = (job["scrape_interval"] for job in jobs if job["job_name"] == "wok")

    assert compose_files.data_sources()["wok-prometheus"]["jsonData"]["timeInterval"] == interval


def test_dashboards_are_provisioned() -> None:
    """The provider finds the dashboards, and they use only provisioned data sources."""
    (provider,) = compose_files.read(compose_files.DASHBOARDS)["providers"]
    place = {target: source for source, target, _ in mounts(compose_files.services()["grafana"])}
    folder = (FOLDER / place[PurePosixPath(provider["options"]["path"])]).resolve()
    found = sorted(folder.glob("*.json"))

    assert folder == ROOT / "deploy/grafana/dashboards"
    assert found
    for path in found:
        dashboard = json.loads(path.read_text("utf-8"))
        variables = {
            variable["query"]
            for variable in dashboard["templating"]["list"]
            if variable["type"] == "datasource"
        }
        text = path.read_text("utf-8")
        uids = set(re.findall(r'"uid":\s*"(wok-(?:prometheus|tempo|loki|jaeger|alertmanager))"', text))
        assert variables <= DATA_SOURCE_TYPES
        assert uids <= set(compose_files.data_sources())


def test_settings_of_the_exporter_are_its_own() -> None:
    """The exporter knows all of its variables in compose.yaml."""
    known = {f"WOK_EXPORTER_{key.upper()}" for key in OPTIONS}
    environment = compose_files.services()["wok-exporter"]["environment"]
    ours = {name for name in environment if name.startswith("WOK_")}

    assert ours
    assert ours <= known
    assert environment == compose_files.services()["wok-demo"]["environment"]


def test_the_readme_names_what_is_there() -> None:
    """The README names existing profiles, services and files."""
    text = (FOLDER / "README.md").read_text("utf-8")
    profiles = {
        profile for service in compose_files.services().values() for profile in service.get("profiles", ())
    }

    assert set(re.findall(r"--profile (\w+)", text)) == profiles
    for command in re.findall(r"^docker compose .*$", text, re.MULTILINE):
        words = command.partition("#")[0].split()
        assert {"up", "down", "ps", "logs", "kill", "pull", "config"} & set(words), command
    for name in re.findall(r"\]\(([^)#]+)\)", text):
        assert (FOLDER / name).exists(), name
    published = {
        port.split(":")[1]
        for service in compose_files.services().values()
        for port in service.get("ports", ())
    }
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", text)) <= published


def test_a_replay_is_not_discarded_and_can_be_found() -> None:
    """Tempo takes any number of live traces, and indexes and searches spans as old as it keeps
    them.
    """
    tempo = compose_files.read(FOLDER / "tempo.yaml")
    kept = tempo["compactor"]["compaction"]["block_retention"]

    assert tempo["overrides"]["defaults"]["ingestion"]["max_traces_per_user"] == 0
    assert tempo["storage"]["trace"]["wal"]["ingestion_time_range_slack"] == kept
    assert tempo["query_frontend"]["search"]["max_duration"] == kept


@pytest.mark.parametrize("path", ["compose/otelcol.yaml", "fleet/collector/gateway.yaml"])
def test_a_request_to_loki_has_a_margin(path: str) -> None:
    """A collector's requests to Loki are bounded in bytes, well under the 4 MiB above which Loki
    rejects them whole.
    """
    text = compose_files.collector_text(compose_files.ROOT / "deploy" / path)
    batch = yaml.safe_load(text)["exporters"]["otlp_http/loki"]["sending_queue"]["batch"]

    assert batch["sizer"] == "bytes"
    assert 2 * int(batch["max_size"]) <= 4 * 1024 * 1024


def test_a_search_for_traces_shows_results_while_they_arrive() -> None:
    """Grafana's streaming search is on in the data source and in Tempo, on the port that Grafana uses."""
    source = compose_files.data_sources()["wok-tempo"]
    tempo = compose_files.read(FOLDER / "tempo.yaml")

    assert source["jsonData"]["streamingEnabled"] == {"search": True}
    assert tempo["stream_over_http_enabled"] is True
    assert source["url"] == f"http://tempo:{tempo['server']['http_listen_port']}"
