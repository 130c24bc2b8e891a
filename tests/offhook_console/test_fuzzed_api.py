"""Schemathesis requests what the served OpenAPI document allows, and what it does not."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import redis as blocking

from offhook import queues
from offhook.inbox import keys
from offhook.settings import load_settings
from offhook_console.app import application
from receiver.quarantine_retry import retry
from tests.conftest import Configure
from tests.events import event
from tests.offhook_console.conftest import TOKEN, place, users
from tests.offhook_console.test_api import REFUSED
from tests.unifiedapi.serving import serve

PROGRAM = Path(sys.executable).parent / "schemathesis"
# `make fuzz-api SECONDS=300` runs it for longer.
SECONDS = os.environ.get("OFFHOOK_FUZZ_SECONDS", "")
QUICK = ["--max-examples", "2", "--seed", "1", "--generation-deterministic"]


async def test_every_answer_is_as_described(
    configure: Configure, password_hash: str, rq: blocking.Redis, tmp_path: Path
) -> None:
    configure('[handlers.crm]\nuse = "console"\n' + users(password_hash))
    for n in range(3):
        await place("answered", seed=n, ago=timedelta(minutes=n))
        queues.bury(rq, "crm", event(f"call-{n}", n), attempt=1, error="503", trace="t")
        rq.xadd(keys.quarantine(), REFUSED)
    options = ["--max-time", SECONDS, "--max-examples", "100000"] if SECONDS else QUICK
    with serve(application(load_settings(), retry), lifespan="on") as url:
        run = subprocess.run(
            [
                *(PROGRAM, "run", f"{url}/api/v1/openapi.json"),
                *("--header", f"Authorization: Bearer {TOKEN}"),
                *("--checks", "all", "--no-color", "--request-timeout", "60"),
                *options,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
