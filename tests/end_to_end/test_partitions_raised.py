"""`partitions` is raised by restarting one process after the other, with kills, under load."""

import asyncio
import os
import signal
import threading
from collections import defaultdict
from contextlib import suppress
from itertools import count
from pathlib import Path
from subprocess import Popen

import aiohttp
import httpx
import pytest

from offhook.callback_url import callback_url
from offhook.event import from_stored
from offhook.inbox import keys
from tests.conftest import SECRET
from tests.installation import Installation, Outcome, audit, wait_until
from tests.ports import free_port

HANDLERS = f"""
[handlers.fast]
use = "tests.recorders:record"
[handlers.plain]
use = "tests.recorders:record_in_thread"
[handlers.parking]
use = "tests.recorders:park_some"
retry = {[2] * 20}
[handlers.apart]
use = "tests.recorders:record"
process = "own"
"""
NAMES = "fast", "plain", "parking", "apart"


class Callers(threading.Thread):
    """Calls whose events come to the two receivers in turn, without retries.

    Attributes:
        away: receivers that get none, as from a proxy that looks at their health.
    """

    def __init__(self, ports: tuple[int, int]) -> None:
        super().__init__(daemon=True)
        self.outcome = Outcome()
        self.away: set[int] = set()
        self._ports = ports
        self._enough = threading.Event()
        self._numbers = count()

    def run(self) -> None:
        asyncio.run(self._run())

    def stop(self) -> None:
        self._enough.set()
        self.join()

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as session:
            await asyncio.gather(*(self._call_on(session) for _ in range(16)))

    async def _call_on(self, session: aiohttp.ClientSession) -> None:
        urls = [
            callback_url(f"http://127.0.0.1:{port}", SECRET, "main", "0003*210", "dial-in")
            for port in self._ports
        ]
        while not self._enough.is_set():
            number = next(self._numbers)
            call = f"{'parked' if number % 9 == 0 else 'call'}-{number}"
            for n in range(20):
                form: dict[str, str | int] = {"CallID": call, "CallFlow": "IN", "n": n}
                with suppress(aiohttp.ClientError, TimeoutError):  # no response: not accepted
                    index = n % 2 if n % 2 not in self.away else 1 - n % 2
                    async with session.post(urls[index], data=form) as answer:
                        if answer.status == 200:
                            self.outcome.accepted[call].append(n)
                await asyncio.sleep(0.05)


class Rolling:
    """An installation with two receivers, whose processes are restarted one by one."""

    def __init__(self, offhook: Installation) -> None:
        self.offhook = offhook
        self.ports = offhook.port, free_port()
        self.receivers = [offhook.receiver, self._receiver(1, 4)]
        self.callers = Callers(self.ports)

    def restart_receiver(self, index: int, number: signal.Signals, partitions: int) -> None:
        self.callers.away.add(index)
        self.receivers[index].send_signal(number)
        self.receivers[index].wait(60)
        self.receivers[index] = self._receiver(index, partitions)
        self.callers.away.discard(index)

    def restart_workers(self, partitions: int) -> None:
        """Kill all of them at once, and start them with another number."""
        offhook = self.offhook
        family = [*offhook.work_horses(), *offhook.workers(), offhook.supervisor.pid]
        offhook.supervisor.send_signal(signal.SIGSTOP)
        self.kill(family)
        offhook.supervisor.wait()
        offhook.environment["OFFHOOK_PARTITIONS"] = str(partitions)
        offhook.supervisor = offhook.start_supervisor()

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def go_on(self) -> None:
        """Wait until some more events were accepted, and some were delivered."""
        accepted, delivered = self.callers.outcome.count, len(self.offhook.delivered("fast"))
        wait_until(lambda: self.callers.outcome.count >= accepted + 150, "calls go on", 120)
        wait_until(lambda: len(self.offhook.delivered("fast")) > delivered, "they arrive", 120)

    def _receiver(self, index: int, partitions: int) -> Popen[bytes]:
        offhook = self.offhook
        offhook.environment["OFFHOOK_PARTITIONS"] = str(partitions)
        offhook.port, before = self.ports[index], offhook.port
        started = offhook.start_receiver()
        # One that begins with its journal, while the other uses none, changes the order.
        wait_until(lambda: self._takes_directly(self.ports[index]), "the receiver is ready", 90)
        offhook.port = before
        return started

    @staticmethod
    def _takes_directly(port: int) -> bool:
        with suppress(httpx.HTTPError):
            health = httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).json()
            return health["status"] == "ready" and "redis:" not in str(health)
        return False

    def partitions_of(self) -> dict[str, set[int]]:
        """The partitions that have events of each call."""
        found: dict[str, set[int]] = defaultdict(set)
        with self.offhook.client() as client:
            for partition in range(16):
                for _, fields in client.xrange(keys.inbox(partition)):
                    found[from_stored(fields["e"].encode()).call_id].add(partition)
        return found

    def used(self) -> set[int]:
        """The partitions that have events."""
        return set().union(*self.partitions_of().values())


@pytest.mark.parametrize("after", [16])
def test_calls_stay_in_order_while_partitions_are_raised(tmp_path: Path, after: int) -> None:
    with Installation.running(
        tmp_path, HANDLERS, partitions=4, processes=2, patience=60.0
    ) as offhook:
        rolling = Rolling(offhook)
        rolling.callers.start()
        try:
            rolling.go_on()
            rolling.restart_receiver(0, signal.SIGTERM, after)
            rolling.go_on()
            rolling.kill(offhook.work_horses())
            rolling.restart_receiver(1, signal.SIGKILL, 4)  # it crashed before its turn
            rolling.go_on()
            rolling.kill(offhook.workers())
            rolling.restart_receiver(1, signal.SIGKILL, after)
            rolling.go_on()
            rolling.restart_workers(after)
            rolling.restart_receiver(0, signal.SIGKILL, after)
            rolling.go_on()
            every = set(range(after))
            wait_until(lambda: rolling.used() == every, "every partition has events", 60)
        finally:
            rolling.callers.stop()
        outcome = rolling.callers.outcome
        offhook.wait_for_all(outcome, NAMES, 120)
        for name in NAMES:
            audit(outcome, offhook.delivered(name), repeats=True)
        found = rolling.partitions_of()
        log = offhook.log.read_text()
    assert all(len(partitions) == 1 for partitions in found.values())
    for change in ("from 4 to 16", "from 16 to 4"):
        assert f"`partitions` was changed {change}" in log
