"""The RQ job that runs `offhook doctor` and keeps the result, for metrics and the console.

In a process of its own: it looks at the configuration as it is now, and loads plugins.
"""

import asyncio
import json
import logging
import socket
import subprocess
import sys

from redis.exceptions import RedisError

from offhook.connection import opened
from offhook.operations.last_diagnosis import LastDiagnosis, keep
from offhook.settings import Settings
from workers import process, version

log = logging.getLogger("offhook.doctor")

_PATIENCE = 300.0  # seconds
_KEEP = 7200.0  # seconds: several runs


def run_doctor() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(examine(version.settings()))


async def examine(settings: Settings) -> None:
    """Run it, and keep what it found."""
    try:
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "offhook_cli", "doctor", "--json"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        found = LastDiagnosis.of(json.loads(ran.stdout), socket.gethostname())
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        log.error("`offhook doctor` cannot be run: %s", type(error).__name__)
        return
    try:
        async with opened(settings) as (inbox, _):
            await keep(inbox.redis, found, _KEEP)
    except RedisError as error:
        log.error("cannot keep what `offhook doctor` found: %s", error)
