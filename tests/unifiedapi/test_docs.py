"""Run what docs/unifiedapi.md shows: its programs against a sandbox, and its command."""

import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.ports import free_port
from tests.unifiedapi.serving import serve
from unifiedapi import errors
from unifiedapi.listing import ListOptions
from unifiedapi.sandbox.call_records import record_of
from unifiedapi.sandbox.scenarios import Scenario, make_call
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Store
from unifiedapi.sandbox.tls import Certificate

PAGE = (Path(__file__).parents[2] / "docs" / "unifiedapi.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("program", blocks("python"))
def test_programs_run(
    program: str, store: Store, certificate: Certificate, capfd: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    missed = make_call(Scenario.MISSED, Random(1), ["0003*210"])
    store.add_record(record_of(missed, began=now, saved=now))
    with serve(create_sandbox(store)) as plain, serve(create_sandbox(store), certificate) as tls:
        program = program.replace("http://127.0.0.1:8089", plain)
        program = program.replace(
            '"https://pbx.example.org", auth', f'"{tls}", auth, ca_file="{certificate.ca_file}"'
        )
        subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)
    shown = capfd.readouterr().out
    if "print(presence" in program:
        assert [shown] == blocks("text")
    if "print(call.id)" in program:
        assert re.fullmatch("[0-9a-f]{32}\n", shown)
    if "print(record" in program:
        assert shown.endswith("('0003*210',)\n")


def test_command_starts_a_sandbox() -> None:
    port = free_port()
    command, _ = blocks("sh")
    words = shlex.split(command.replace("8089", str(port)))
    assert words[0] == "python"
    process = subprocess.Popen([sys.executable, *words[1:], "--log-level", "critical"])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/openapi.json")
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert answer.json()["openapi"] == "3.1.0"
    finally:
        process.terminate()
        process.wait(10)


def test_toml_file_can_be_loaded(tmp_path: Path) -> None:
    [text] = blocks("toml")
    (tmp_path / "pbx.toml").write_text(text)
    store = Store.load(tmp_path / "pbx.toml")
    assert set(store.extensions) == {"0003*210", "0003*400"}


def test_page_names_list_options_and_base_errors() -> None:
    bases = {k.__name__ for k in errors.UnifiedApiError.__subclasses__()} | {"NotTrusted"}
    for name in bases | set(ListOptions.__annotations__):
        assert f"`{name}`" in PAGE
