"""The Procfile: honcho starts everything, a callback is delivered, SIGTERM stops everything."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode

import pytest

from offhook.callback_url import callback_url
from tests.conftest import SECRET, Configure
from tests.ports import free_port
from tests.processes import children, processes, session_of, title

ROOT = Path(__file__).parents[2]
# As a platform, it lets processes end for half a minute before it kills them.
HONCHO = "from honcho import command, manager; manager.KILL_WAIT = 30; command.main()"


def eventually(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.1)
    return what()


class Honcho:
    """`honcho start`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "honcho.log"
        bin_folder = Path(sys.executable).parent
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HONCHO, "-f", str(ROOT / "Procfile"), "start"],
                cwd=folder,
                env=os.environ
                | {
                    "PORT": str(self.port),  # as a platform sets it
                    "PATH": f"{bin_folder}:{os.environ['PATH']}",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions = {self.process.pid}  # each command has one of its own

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def processes(self) -> dict[int, str]:
        """Return what `ps` shows of the running processes, also of those that outlive honcho."""
        self._sessions |= {session_of(pid) for pid in below(self.process.pid)} - {0}
        return {pid: title(pid) for pid in processes() if session_of(pid) in self._sessions}

    def kill(self) -> None:
        while family := self.processes():
            for pid in family:
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def below(pid: int) -> list[int]:
    """Return the processes below a process."""
    return [each for child in children(pid) for each in (child, *below(child))]


@pytest.fixture
def honcho(tmp_path: Path, configure: Configure) -> Iterator[Honcho]:
    configure('[handlers.console]\nuse = "console"\n')
    running = Honcho(tmp_path)
    yield running
    running.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_callback_is_delivered_and_no_process_remains(honcho: Honcho) -> None:
    assert eventually(honcho.is_ready, 30), honcho.output()
    url = callback_url(honcho.url, SECRET, "pbx", "0003*210", "dial-in")
    form = urlencode({"CallID": "procfile-1", "CallerIDNum": "+40721000000"}).encode()
    with urllib.request.urlopen(url, form, timeout=30) as answer:  # noqa: S310
        assert answer.status == 200

    assert eventually(lambda: "call procfile-1" in honcho.output(), 30), honcho.output()
    assert url not in honcho.output()

    assert eventually(lambda: "offhook work: scheduler" in honcho.processes().values(), 30)
    # No shell in between that would not pass the signal on.
    titles = honcho.processes().values()
    assert not [title for title in titles if title.startswith(("sh ", "/bin/sh "))]
    honcho.process.send_signal(signal.SIGTERM)
    honcho.process.wait(60)
    assert eventually(lambda: not honcho.processes(), 30), honcho.processes()
    assert "Traceback" not in honcho.output(), honcho.output()
    assert "SIGKILL" not in honcho.output(), honcho.output()  # every process ended in time
