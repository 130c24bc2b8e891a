"""The sandbox conforms to its OpenAPI description."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from tests.unifiedapi.serving import Server
from unifiedapi.sandbox.call_records import record_of
from unifiedapi.sandbox.scenarios import Scenario, make_call
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Store

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("version", "phases"), [(3, "coverage,fuzzing,stateful"), (5, "fuzzing,stateful")]
)
def test_schemathesis_finds_no_failures(
    version: int, phases: str, store: Store, server: Server, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    for seed, scenario in enumerate(Scenario):
        call = make_call(scenario, Random(seed), ["0003*210", "0003*211", "0003*212"])
        store.add_record(record_of(call, began=now, saved=now, speed=1000))
    server.app = create_sandbox(store, wrapped=version == 5, numbers=version == 5)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", HERE / "schemathesis.toml"),
            *("run", f"{server.url}/openapi.json"),
            *("--header", "Authorization: Bearer sandbox-token-administrator"),
            *("--phases", phases),
            *("--max-examples", "10"),
            *("--generation-database", "none"),
            *("--warnings", "off"),
        ],
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_checks.py")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Tested: 17" in run.stdout
