"""The processes of an installation on this machine, for `demo` and `dev`."""

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from offhook.errors import OffhookError

_STOP_WITHIN = 30.0  # seconds

_PBX = """\
[[users]]
id = 1
organization = "{organization}"
level = "organization"

[[apps]]
id = "offhook"
secret = "{secret}"
user = 1
"""
_PHONE = """
[[extensions]]
number = "{number}"
user = 1
"""


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Make a folder for the processes' files. Keep it only if one of them failed."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    except OffhookError:
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def write_pbx(path: Path, extensions: Sequence[str]) -> str:
    """Write the file of a sandbox PBX with these phones, and an app `offhook` that may use its API.

    Returns:
        The app's secret.
    """
    secret = secrets.token_urlsafe(32)
    organization = extensions[0].partition("*")[0]
    phones = [_PHONE.format(number=number) for number in extensions]
    path.write_text("".join([_PBX.format(organization=organization, secret=secret), *phones]))
    return secret


@contextmanager
def process(
    log: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of `offhook` while in this context, with its output in a file."""
    running = start(log, *arguments, environment=environment)
    try:
        yield running
    finally:
        stop(running)


def start(
    log: Path, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command of `offhook`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "offhook_cli", *arguments],
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: workers stop before their server
        )


def stop(running: subprocess.Popen[bytes]) -> None:
    """Stop a command gracefully; kill it if it takes too long."""
    running.terminate()
    try:
        running.wait(_STOP_WITHIN)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()


async def until_answers(
    url: str, running: subprocess.Popen[bytes], what: str, folder: Path
) -> None:
    """Wait until a process answers requests.

    Raises:
        OffhookError: it ended, or took too long.
    """
    import httpx  # not at the start of every `offhook work`

    deadline = time.monotonic() + 20
    async with httpx.AsyncClient() as client:
        while True:
            with suppress(httpx.TransportError):
                if (await client.get(url)).is_success:
                    return
            if running.poll() is not None or time.monotonic() > deadline:
                raise OffhookError(f"{what} did not start: see the logs in {folder}")
            await asyncio.sleep(0.1)
