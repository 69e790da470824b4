"""From the line of a failed task to the message on somebody's screen, with the rules and the routing that deploy/ ships."""

from __future__ import annotations

import json
import re
import socketserver
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
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
    content["templates"] = [str(DEPLOY / "alertmanager/*.tmpl")]
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def mail_server() -> Iterator[tuple[str, list[EmailMessage]]]:
    """Run a mail server that keeps what it gets."""
    kept: list[EmailMessage] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 test\r\n")
            for line in self.rfile:
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    data = b"".join(iter(self.rfile.readline, b".\r\n"))
                    kept.append(message_from_bytes(data, policy=policy.default))
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 test\r\n")
                if verb == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", kept
        finally:
            server.shutdown()
            thread.join()


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
        links = alert["annotations"]
        assert opened(links["runbook_url"]).startswith("# WokTaskFailed\n")
        assert links["page_url"].startswith(
            f"http://127.0.0.1:{exporter.port}/?app=kimchi&operation=vms.clone&state=failed&from="
        )
        assert "<title>Wok tasks</title>" in opened(links["page_url"])
        assert (links["trace_url"], links["dashboard_url"]) == ("", "")

        until(lambda: len(messages) > 1, RESOLVED_SECONDS, lambda: server.get("/api/v1/alerts"))
        assert messages[1].content["status"] == "resolved"
        assert messages[1].receiver == told.receiver
        with capsys.disabled():
            print(f" [resolved after {messages[1].at - told.at:.0f} s]", end="")
        assert len(messages) == 2


def test_a_mail_has_working_links_and_no_empty_one(tmp_path: Path) -> None:
    """Alertmanager renders the shipped template: a link for each that is known, and no name becomes markup."""
    said = {
        "summary": "<b>kimchi</b> vms.clone failed on kvm01",
        "description": "Error code: KCHVM0035E.",
        "page_url": "http://kvm01:10965/?app=kimchi&operation=vms.clone",
        "runbook_url": "http://kvm01:10965/runbooks/WokTaskFailed.md",
        "trace_url": "",
        "dashboard_url": "",
    }
    alert = {
        "labels": {"alertname": "WokTaskFailed", "severity": "warning", "instance": "kvm01:10965"},
        "annotations": said,
        "generatorURL": "http://prometheus.example/graph",
    }
    with mail_server() as (address, mails):
        content = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
        content["global"]["smtp_smarthost"] = address
        content["templates"] = [str(DEPLOY / "alertmanager/*.tmpl")]
        config = tmp_path / "alertmanager.yml"
        config.write_text(yaml.safe_dump(content))
        with alertmanager(tmp_path, config) as manager:
            request = urllib.request.Request(
                f"{manager.url}/api/v2/alerts",
                data=json.dumps([alert]).encode(),
                headers={"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request, timeout=10).close()
            until(lambda: bool(mails), NOTIFIED_SECONDS)

    (mail,) = mails
    text, page = (part.get_content() for part in mail.walk() if not part.is_multipart())
    assert mail["Subject"] == f"[FIRING] {said['summary']}"
    assert re.findall(r"^(\w+): +(\S+)\r?$", text, re.MULTILINE) == [
        ("Page", said["page_url"]),
        ("Runbook", said["runbook_url"]),
        ("Query", alert["generatorURL"]),
    ]
    assert [unescape(link) for link in re.findall('href="([^"]*)"', page)] == [
        said["page_url"],
        said["runbook_url"],
        alert["generatorURL"],
    ]
    assert "<b>" not in page


def opened(url: str) -> str:
    """Return what a browser gets that follows a link."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def _values(answer: dict[str, Any]) -> list[Any]:
    return list(answer["data"]["result"])
