"""`offhook sandbox`, run as a process."""

import json
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.installation import OFFHOOK, wait_until
from tests.ports import free_port


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OFFHOOK, "sandbox", *arguments], capture_output=True, text=True, timeout=60
    )


class Sandbox:
    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.log = folder / "sandbox.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [OFFHOOK, "sandbox", "start", "--port", str(self.port), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.url = f"{'https' if '--tls' in options else 'http'}://127.0.0.1:{self.port}"
        wait_until(self.answers, "the sandbox answers")

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/openapi.json", verify=False).is_success  # noqa: S501
        except httpx.TransportError:
            return False

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    running = Sandbox(tmp_path)
    yield running
    running.stop()


def test_call_is_placed_and_counted(sandbox: Sandbox) -> None:
    placed = run("call", "missed", "--url", sandbox.url, "--speed", "200", "--json")
    assert placed.returncode == 0, placed.stderr
    assert re.fullmatch(r"\d+\.\d+", json.loads(placed.stdout)["id"])

    def over() -> bool:
        return bool(json.loads(run("tally", "--url", sandbox.url, "--json").stdout)["calls"] == 1)

    wait_until(over, "the call is over")
    assert run("tally", "--url", sandbox.url).stdout.startswith("1 calls finished; 0 callbacks")


@pytest.mark.parametrize("what", [["call", "missed"], ["load", "3", "--rate", "100"]])
def test_dropped_callbacks_are_not_sent_but_calls_are_recorded(
    what: list[str], sandbox: Sandbox
) -> None:
    headers = {"Authorization": "Bearer sandbox-token-administrator"}
    event = {"type": 2, "method": 0, "status": 1, "url": "http://127.0.0.1:9/hangup"}
    for phone in ("0003*210", "0003*211", "0003*212", "0003*213"):
        events = f"{sandbox.url}/uapi/extensions/@me/{phone}/phoneCallEvents"
        httpx.post(events, json=event, headers=headers).raise_for_status()
    placed = run(*what, "--url", sandbox.url, "--speed", "1000", "--drop", "hangup")
    assert placed.returncode == 0, placed.stderr
    calls = 1 if what[0] == "call" else 3

    def recorded() -> bool:
        answer = httpx.get(f"{sandbox.url}/uapi/cdr", headers=headers)
        return answer.status_code == 200 and answer.json()["totalResults"] == calls

    wait_until(recorded, "the calls are recorded")
    assert "; 0 callbacks" in run("tally", "--url", sandbox.url).stdout


def test_load_places_calls(sandbox: Sandbox) -> None:
    assert run("load", "10", "--rate", "100", "--url", sandbox.url).returncode == 0


def test_start_prints_the_configuration_table(sandbox: Sandbox) -> None:
    shown = sandbox.log.read_text()
    assert f'[pbx.sandbox]\nhost = "{sandbox.url}"' in shown
    assert "0003*210" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tls_uses_a_printed_certificate_authority(tmp_path: Path, number: signal.Signals) -> None:
    running = Sandbox(tmp_path, "--tls")
    found = re.search(r'ca_file = "(.+)"', running.log.read_text())
    assert found is not None
    ca_file = Path(found[1])
    context = ssl.create_default_context(cafile=ca_file)
    assert httpx.get(f"{running.url}/openapi.json", verify=context).is_success
    assert run("tally", "--url", running.url).returncode == 0
    assert running.stop(number) == 0
    assert not ca_file.parent.exists()


def test_without_a_sandbox_the_start_command_is_named() -> None:
    done = run("call", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "start one with `offhook sandbox start`" in done.stderr


def test_fault_in_a_file_names_the_place(tmp_path: Path) -> None:
    file = tmp_path / "pbx.toml"
    file.write_text("[[users]]\nid = 'x'\n")
    done = run("start", "--file", str(file))
    assert done.returncode == 2
    assert "$.users[0].id" in done.stderr


def test_port_in_use_is_one_sentence(sandbox: Sandbox) -> None:
    done = run("start", "--port", str(sandbox.port))
    assert done.returncode == 2
    assert done.stderr == (
        f"cannot listen on 127.0.0.1, port {sandbox.port}: Address already in use; "
        "choose with --host and --port\n"
    )
    assert f"sandbox call ring-group --url {sandbox.url}\n" in sandbox.log.read_text()
