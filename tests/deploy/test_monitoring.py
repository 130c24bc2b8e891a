"""Prometheus' rules and Grafana's dashboard, with a real Prometheus and a real installation."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from offhook.inbox import keys
from offhook_cli.embedded_server import free_port
from tests.brokers import installed
from tests.installation import ROOT, Installation, wait_until
from tests.receiver.running import url

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
UNIT_TESTS = ROOT / "tests" / "deploy" / "rules_test.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "offhook.json").read_text())
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())
MONITORING = (ROOT / "docs" / "monitoring.md").read_text()
EXPRESSIONS = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
]
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

    def scrapes(self) -> bool:
        """Return whether it is ready, and has scraped, so far twice."""
        try:
            ready = httpx.get(f"{self._server}/-/ready", timeout=10).status_code == 200
        except httpx.TransportError:
            return False
        return ready and bool(self.query("count_over_time(offhook_events_total[1m]) >= 2"))


@contextmanager
def prometheus(folder: Path, scraped: int) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a port of this machine every second, with our rules."""
    binary, port = installed("prometheus", "prometheus"), free_port()
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "offhook", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            running = Prometheus(port)
            wait_until(running.scrapes, "Prometheus has scraped", 60)
            yield running
        finally:
            process.kill()
            process.wait()


def test_a_real_prometheus_evaluates_every_expression(tmp_path: Path) -> None:
    with (
        Installation.running(tmp_path, HANDLERS) as offhook,
        offhook.client() as redis,
    ):
        redis.hset(keys.REGISTERED, "main/", "[5,2]")  # what `watch_phones` stores
        for n in range(5):
            assert call_back(offhook.port, f"call-{n}") == 200
        with prometheus(tmp_path, offhook.port) as server:

            def fires(alert: str) -> bool:
                return bool(server.query(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))

            wait_until(lambda: fires("OffhookDeadLetters"), "dead letters are reported", 60)
            for expression in EXPRESSIONS:
                asked = expression.replace("$__rate_interval", "1m")
                assert "$" not in asked
                assert server.query(asked), f"no data: {asked}"
            for name in set(re.findall(r"offhook_\w+", RULES.read_text())):
                assert server.query(name), f"no data: {name}"
            rules = server.get("rules")["groups"][0]["rules"]
            assert {rule["name"] for rule in rules} == set(ALERTS)
            wait_until(
                lambda: all(
                    rule["health"] == "ok" for rule in server.get("rules")["groups"][0]["rules"]
                ),
                "every rule is evaluated",
                30,
            )
            assert server.query('offhook_callbacks_total{outcome="accepted"}')[0]["value"][1] == "5"


def call_back(port: int, call: str) -> int:
    form = {"CallID": call, "CallFlow": "IN", "n": "1"}
    return httpx.post(f"http://127.0.0.1:{port}{url()}", data=form, timeout=20).status_code
