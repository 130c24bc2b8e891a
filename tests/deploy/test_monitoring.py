"""Prometheus' rules, Alertmanager's configuration and Grafana's dashboard, with real servers."""

import email
import email.policy
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from offhook.inbox import keys
from offhook.operations.last_diagnosis import LastDiagnosis
from tests.brokers import installed
from tests.http_target import HttpTarget
from tests.installation import ROOT, Installation, wait_until
from tests.ports import free_port
from tests.receiver.running import url

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
ALERTMANAGER = ROOT / "deploy" / "prometheus" / "alertmanager.yml"
UNIT_TESTS = ROOT / "tests" / "deploy" / "rules_test.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "offhook.json").read_text())
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())
MONITORING = (ROOT / "docs" / "monitoring.md").read_text()
EXPRESSIONS = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
]
FAILED = msgspec.json.encode(LastDiagnosis(datetime.now(UTC), "web1", {"fail": 1}, ["It fails."]))
HANDLERS = """
[handlers.crm]
use = "tests.recorders:remember"
[handlers.down]
use = "tests.recorders:never_now"
retry = []
[pbx.main]
"""


def test_rules_are_valid_and_each_alert_fires_at_its_time() -> None:
    promtool = installed("promtool", "prometheus")
    for command in (["check", "rules", RULES], ["test", "rules", UNIT_TESTS]):
        ran = subprocess.run(
            [promtool, *map(str, command)], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_test_and_a_runbook(alert: str) -> None:
    assert f"alertname: {alert}\n        exp_alerts:\n" in UNIT_TESTS.read_text()
    assert f"\n### {alert}\n" in MONITORING
    assert f"runbook: docs/monitoring.md#{alert.lower()}\n" in RULES.read_text()


def test_the_documented_metrics_are_those_of_rules_and_dashboard() -> None:
    used = {
        re.sub("_bucket$", "", name)
        for text in (RULES.read_text(), *EXPRESSIONS)
        for name in re.findall(r"offhook_\w+", text)
    }
    assert used <= set(re.findall(r"^\| `(offhook_\w+)", MONITORING, re.MULTILINE))


def test_the_alertmanager_configuration_is_valid() -> None:
    amtool = installed("amtool", "prometheus-alertmanager")
    ran = subprocess.run([amtool, "check-config", ALERTMANAGER], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Prometheus:
    """A running server."""

    def __init__(self, port: int) -> None:
        self._server = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self._server}/api/v1/{path}", params=parameters, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression."""
        return list(self.get("query", query=expression)["result"])

    def wait_for_data(self, expression: str) -> None:
        """Wait until an expression has a value: a rate needs two scrapes, and some come late."""
        wait_until(lambda: bool(self.query(expression)), f"there is data: {expression}")

    def scrapes(self) -> bool:
        """Return whether it is ready, and has scraped, so far twice."""
        try:
            ready = httpx.get(f"{self._server}/-/ready", timeout=10).status_code == 200
        except httpx.TransportError:
            return False
        return ready and bool(self.query("count_over_time(offhook_events_total[1m]) >= 2"))


@contextmanager
def running(*command: str, log: Path) -> Iterator[None]:
    """Run a server, and kill it at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.kill()
            process.wait()


@contextmanager
def prometheus(folder: Path, scraped: int, alerts: int) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a port every second, with our rules without their waits.

    Args:
        alerts: the port of the Alertmanager.
    """
    binary, port = installed("prometheus", "prometheus"), free_port()
    (folder / "rules.yml").write_text(re.sub(r"for: \w+", "for: 0s", RULES.read_text()))
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{folder}/rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alerts}"]}]}]},
        "scrape_configs": [
            {"job_name": "offhook", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
    with running(
        binary,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        log=folder / "prometheus.log",
    ):
        server = Prometheus(port)
        wait_until(server.scrapes, "Prometheus has scraped", 180)
        yield server


@dataclass
class Receivers:
    """What receives alerts: a mail server and a webhook."""

    webhook: HttpTarget
    mails: dict[str, str] = field(default_factory=dict)  # subject -> text
    port: int = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = email.message_from_bytes(cast(bytes, envelope.content), policy=email.policy.default)
        text = mail.get_body(("plain",))
        assert text is not None
        self.mails[mail["Subject"]] = text.get_content()
        return "250 OK"

    @property
    def called(self) -> set[str]:
        """The alerts that the webhook got."""
        return {
            alert["labels"]["alertname"]
            for each in self.webhook.requests
            for alert in each.json()["alerts"]
        }

    def wait_for(self, *alerts: str) -> None:
        """Wait for a mail about each alert."""

        def missing() -> set[str]:
            return {each for each in alerts if f"[FIRING] {each}" not in self.mails}

        wait_until(lambda: not missing(), f"mails arrive about {alerts}", 120)

    def wait_for_call(self, alert: str) -> None:
        """Wait for a mail about an alert, and until the webhook is called, which may be later."""
        self.wait_for(alert)
        wait_until(lambda: alert in self.called, f"the webhook is called about {alert}", 120)


@contextmanager
def alertmanager(folder: Path, webhook: HttpTarget) -> Iterator[Receivers]:
    """Run an Alertmanager with our configuration, whose messages come at once."""
    binary, mail_port = installed("prometheus-alertmanager", "prometheus-alertmanager"), free_port()
    text = ALERTMANAGER.read_text()
    for ours, its in {
        "mail.example.com:587": f"127.0.0.1:{mail_port}",
        "http://127.0.0.1:9095/offhook": f"http://127.0.0.1:{webhook.port}/",
        "global:": "global:\n  smtp_require_tls: false",
        "group_wait: 30s": "group_wait: 0s",
        "group_interval: 5m": "group_interval: 1s",
    }.items():
        assert ours in text
        text = text.replace(ours, its)
    (folder / "alertmanager.yml").write_text(text)
    received = Receivers(webhook, port=free_port())
    mail_server = Controller(received, hostname="127.0.0.1", port=mail_port)
    mail_server.start()
    try:
        with running(
            binary,
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/alerts",
            f"--web.listen-address=127.0.0.1:{received.port}",
            "--cluster.listen-address=",
            log=folder / "alertmanager.log",
        ):
            yield received
    finally:
        mail_server.stop()


def test_expressions_are_evaluated_and_alerts_arrive(tmp_path: Path, target: HttpTarget) -> None:
    with (
        # One process: five failures open its circuit.
        Installation.running(tmp_path, HANDLERS, processes=1) as offhook,
        offhook.client() as redis,
        alertmanager(tmp_path, target) as receivers,
    ):
        redis.hset(keys.REGISTERED, "main/", "[5,2]")  # what `watch_phones` stores
        redis.set(keys.DIAGNOSIS, FAILED)
        with prometheus(tmp_path, offhook.port, receivers.port) as server:
            for n in range(8):  # the first five open the circuit, the others keep it open
                assert call_back(offhook.port, f"call-{n}") == 200
            receivers.wait_for("OffhookDeadLetters", "OffhookCircuitOpen", "OffhookDoctorFails")
            for expression in EXPRESSIONS:
                asked = expression.replace("$__rate_interval", "1m")
                assert "$" not in asked
                server.wait_for_data(asked)
            for name in set(re.findall(r"offhook_\w+", RULES.read_text())):
                server.wait_for_data(name)
            rules = server.get("rules")["groups"][0]["rules"]
            assert {rule["name"] for rule in rules} == set(ALERTS)
            wait_until(
                lambda: all(
                    rule["health"] == "ok" for rule in server.get("rules")["groups"][0]["rules"]
                ),
                "every rule is evaluated",
                30,
            )
            server.wait_for_data('offhook_callbacks_total{outcome="accepted"} == 8')
            break_everything(offhook, receivers)
    for alert in ("OffhookDeadLetters", "OffhookRedisDown"):
        text = receivers.mails[f"[FIRING] {alert}"]
        assert f"what to do: docs/monitoring.md#{alert.lower()}" in text
    dead = receivers.mails["[FIRING] OffhookDeadLetters"]
    assert re.search(r"firing: down has \d+ dead letters\.", dead)
    assert "OffhookDeadLetters" not in receivers.called  # no reason to wake anyone


def test_what_follows_from_another_alert_is_not_sent(tmp_path: Path, target: HttpTarget) -> None:
    with alertmanager(tmp_path, target) as receivers:
        api = f"http://127.0.0.1:{receivers.port}/api/v2/alerts"

        def fires(alert: str, instance: str) -> None:
            labels = {"alertname": alert, "instance": instance, "severity": "warning"}
            httpx.post(api, json=[{"labels": labels}]).raise_for_status()

        def ready() -> bool:
            try:
                return httpx.get(api).is_success
            except httpx.TransportError:
                return False

        wait_until(ready, "the Alertmanager is ready")
        fires("OffhookRedisDown", "a")
        receivers.wait_for("OffhookRedisDown")
        fires("OffhookJournalUsed", "a")

        def inhibited() -> bool:
            found = httpx.get(api, params={"filter": 'alertname="OffhookJournalUsed"'}).json()
            return [each["status"]["state"] for each in found] == ["suppressed"]

        wait_until(inhibited, "the journal's alert is suppressed")
        fires("OffhookJournalUsed", "b")
        receivers.wait_for("OffhookJournalUsed")  # of a receiver whose Redis answers


def break_everything(offhook: Installation, receivers: Receivers) -> None:
    """Stop one part after the other, until its alert has arrived."""
    assert call_back(offhook.port, "call", url()[:-3] + "xyz") == 404
    offhook.supervisor.terminate()
    offhook.supervisor.wait()
    receivers.wait_for("OffhookEventsRefused", "OffhookNoScheduler")
    receivers.wait_for_call("OffhookNoWorker")
    offhook.redis.stop()
    assert call_back(offhook.port, "call-6") == 200  # goes to the journal
    receivers.wait_for_call("OffhookRedisDown")
    offhook.receiver.terminate()
    receivers.wait_for_call("OffhookDown")


def call_back(port: int, call: str, path: str = "") -> int:
    form = {"CallID": call, "CallFlow": "IN", "n": "1"}
    return httpx.post(f"http://127.0.0.1:{port}{path or url()}", data=form, timeout=20).status_code
