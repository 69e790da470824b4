"""From the line of a failed task to the message on somebody's screen, with the rules and the routing that deploy/ ships."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.e2e.servers import alertmanager, prometheus, until
from tests.e2e.wok import Wok
from tests.program import SAME, running

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRAPE_SECONDS = 5
"""As the stack of deploy/compose has it."""
NOTIFIED_SECONDS = 30.0
"""The window of a final record, a scrape, an evaluation of the rules (5 s), and Alertmanager's second."""
RESOLVED_SECONDS = 480.0
"""The alert looks back five minutes."""


class Message(NamedTuple):
    """One notification: when it came, at which receiver, and what it says."""

    at: float
    receiver: str
    content: dict[str, Any]


@contextmanager
def webhook() -> Iterator[tuple[str, list[Message]]]:
    """Run the screen: a server that keeps what Alertmanager posts to `/<receiver>`."""
    kept: list[Message] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.append(Message(time.time(), self.path.strip("/"), json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def routed(url: str, folder: Path) -> Path:
    """Write the shipped configuration with its receivers turned to the webhook; the routing stays as it is."""
    content = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
    for receiver in content["receivers"]:
        name = receiver["name"]
        receiver.clear()
        receiver.update({"name": name, "webhook_configs": [{"url": f"{url}/{name}", "send_resolved": True}]})
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def scraping(port: int, alertmanager_url: str, folder: Path) -> Path:
    """Write a Prometheus that scrapes the exporter, evaluates the shipped rules and tells Alertmanager."""
    content = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "15s"},
        "rule_files": [str(DEPLOY / "prometheus/*.rules.yaml")],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [alertmanager_url.removeprefix("http://")]}]}]
        },
        "scrape_configs": [{"job_name": "wok", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_failed_task_is_told_and_the_alert_resolves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first failure ever of an operation is a notification within seconds, names it, and resolves by itself; nothing else is told."""
    wok = Wok(tmp_path / "wok.log")
    arguments = ("run", "--log", wok.log, "--state", tmp_path / "state", "--listen", "127.0.0.1:0", *SAME)
    with (
        webhook() as (url, messages),
        alertmanager(tmp_path, routed(url, tmp_path)) as manager,
        running(*arguments, said=tmp_path / "said") as exporter,
        prometheus(tmp_path, scraping(exporter.port, manager.url, tmp_path)) as server,
    ):
        fine, clone = wok.clone("fine"), wok.clone("legacy")
        scraped = 'wok_tasks_in_progress{operation="vms.clone"} == 2'
        until(lambda: bool(_values(server.get("/api/v1/query", query=scraped))), NOTIFIED_SECONDS)
        wok.end(fine)
        time.sleep(2)
        written = wok.end(clone, failed=True)

        until(lambda: bool(messages), NOTIFIED_SECONDS, lambda: server.get("/api/v1/alerts"))
        told = messages[0]
        with capsys.disabled():
            print(f" [from the line to the notification: {told.at - written:.1f} s]", end="")
        assert told.content["status"] == "firing"
        (alert,) = told.content["alerts"]
        assert alert["labels"]["alertname"] == "WokTaskFailed"
        assert alert["labels"]["operation"] == "vms.clone"
        assert alert["labels"]["app"] == "kimchi"
        assert "vms.clone" in alert["annotations"]["description"]
        assert "KCHVM0035E" in alert["annotations"]["description"]
        assert alert["annotations"]["runbook_url"].endswith("/WokTaskFailed.md")

        until(lambda: len(messages) > 1, RESOLVED_SECONDS, lambda: server.get("/api/v1/alerts"))
        assert messages[1].content["status"] == "resolved"
        assert messages[1].receiver == told.receiver
        with capsys.disabled():
            print(f" [resolved after {messages[1].at - told.at:.0f} s]", end="")
        assert len(messages) == 2


def _values(answer: dict[str, Any]) -> list[Any]:
    return list(answer["data"]["result"])
