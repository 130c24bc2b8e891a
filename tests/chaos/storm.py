"""A storm: an installation under load, its processes killed, stopped and cut off at random.

    python -m tests.chaos.storm --rounds 20 --seconds 20 --seed 7

Everything is real: processes, signals, the server's file on the disk. Each round prints its seed;
`--rounds 1 --seed THAT` chooses the same faults and pauses again.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from pathlib import Path
from random import Random

import aiohttp
import redis

from offhook.callback_url import callback_url
from tests.conftest import SECRET
from tests.installation import Installation, wait_until

HANDLERS = f"""
[handlers.fast]
use = "tests.chaos.handlers:record"
timeout = 5
[handlers.plain]
use = "tests.chaos.handlers:record_in_thread"
timeout = 5
[handlers.flaky]
use = "tests.chaos.handlers:fail_at_random"
timeout = 5
retry = {[1] * 30}
"""
NAMES = ("fast", "plain", "flaky")
STEADY = (
    "fast",
    "plain",
)  # these never fail: their next event shows that the installation has recovered
SECONDS_TO_DRAIN = 120.0
Event = tuple[str, int]  # call, number of the event in the call
Delivery = tuple[str, str, int, float]  # id, call, number, time


# Load


class Callers(threading.Thread):
    """Calls that each send their events in turn, as a PBX does: without retries."""

    def __init__(self, port: int, *, calls: int = 12, per_call: int = 10, pause: float = 0.08):
        super().__init__(name="callers", daemon=True)
        self.accepted: dict[Event, float] = {}  # accepted events, and when
        self.sent = 0
        self.stopped = 0.0  # when
        self._base = f"http://127.0.0.1:{port}"
        self._calls, self._per_call, self._pause = calls, per_call, pause
        self._enough = threading.Event()
        self._numbers = iter(range(sys.maxsize))

    def run(self) -> None:
        asyncio.run(self._run())

    def stop(self) -> None:
        """Return when the requests in flight have their responses."""
        self.stopped = time.time()
        self._enough.set()
        self.join()

    async def _run(self) -> None:
        limit = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(timeout=limit) as session:
            await asyncio.gather(*(self._call_on(session) for _ in range(self._calls)))

    async def _call_on(self, session: aiohttp.ClientSession) -> None:
        url = callback_url(self._base, SECRET, "main", "0003*210", "dial-in")
        while not self._enough.is_set():
            call = f"call-{next(self._numbers)}"
            for n in range(self._per_call):
                self.sent += 1
                form: dict[str, str | int] = {"CallID": call, "CallFlow": "IN", "n": n}
                with suppress(aiohttp.ClientError, TimeoutError):  # no response: not accepted
                    async with session.post(url, data=form) as answer:
                        if answer.status == 200:
                            self.accepted[call, n] = time.time()
                await asyncio.sleep(self._pause)


# Faults: each returns when its effect is over and only the recovery remains


def kill_receiver(offhook: Installation, dice: Random) -> None:
    offhook.receiver.kill()
    offhook.receiver.wait()
    offhook.receiver = offhook.start_receiver()
    wait_until(offhook.is_ready, "the receiver is ready again")


def kill_work_horse(offhook: Installation, dice: Random) -> None:
    _send(signal.SIGKILL, _one_of(offhook.work_horses(), dice))


def kill_all_work_horses(offhook: Installation, dice: Random) -> None:
    for pid in offhook.work_horses():
        _send(signal.SIGKILL, pid)


def kill_worker(offhook: Installation, dice: Random) -> None:
    _send(signal.SIGKILL, _one_of(_workers(offhook), dice))


def kill_all_workers(offhook: Installation, dice: Random) -> None:
    for pid in _workers(offhook):
        _send(signal.SIGKILL, pid)


def kill_scheduler(offhook: Installation, dice: Random) -> None:
    _send(signal.SIGKILL, offhook.scheduler())


def kill_supervisor(offhook: Installation, dice: Random) -> None:
    offhook.supervisor.kill()
    offhook.supervisor.wait()
    offhook.supervisor = offhook.start_supervisor()


def kill_everybody(offhook: Installation, dice: Random) -> None:
    """Kill the supervisor and all processes below it, as when a machine or a container ends."""
    family = [*offhook.work_horses(), *offhook.workers(), offhook.supervisor.pid]
    offhook.supervisor.send_signal(signal.SIGSTOP)  # it must not start new ones meanwhile
    for pid in family:
        _send(signal.SIGKILL, pid)
    offhook.supervisor.wait()
    offhook.supervisor = offhook.start_supervisor()


def kill_server(offhook: Installation, dice: Random) -> None:
    offhook.redis.terminate()
    time.sleep(dice.uniform(0, 6))
    offhook.redis.start()


def stall_receiver(offhook: Installation, dice: Random) -> None:
    _stall(offhook.receiver.pid, dice)


def stall_work_horse(offhook: Installation, dice: Random) -> None:
    _stall(_one_of(offhook.work_horses(), dice), dice)


def stall_worker(offhook: Installation, dice: Random) -> None:
    _stall(_one_of(_workers(offhook), dice), dice)


def stall_scheduler(offhook: Installation, dice: Random) -> None:
    _stall(offhook.scheduler(), dice)


def stall_supervisor(offhook: Installation, dice: Random) -> None:
    _stall(offhook.supervisor.pid, dice)


def stall_server(offhook: Installation, dice: Random) -> None:
    _stall(offhook.server_pid(), dice)


def flush_scripts(offhook: Installation, dice: Random) -> None:
    with offhook.client() as client:
        client.script_flush()


def kill_connections(offhook: Installation, dice: Random) -> None:
    with offhook.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)


Fault = Callable[[Installation, Random], None]
FAULTS: dict[str, Fault] = {
    fault.__name__.replace("_", " "): fault
    for fault in (
        kill_receiver,
        kill_work_horse,
        kill_all_work_horses,
        kill_worker,
        kill_all_workers,
        kill_scheduler,
        kill_supervisor,
        kill_everybody,
        kill_server,
        stall_receiver,
        stall_work_horse,
        stall_worker,
        stall_scheduler,
        stall_supervisor,
        stall_server,
        flush_scripts,
        kill_connections,
    )
}


def _send(number: signal.Signals, pid: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


def _stall(pid: int, dice: Random) -> None:
    _send(signal.SIGSTOP, pid)
    time.sleep(dice.uniform(1, 5))
    _send(signal.SIGCONT, pid)


def _one_of(pids: Sequence[int], dice: Random) -> int:
    if not pids:
        raise NothingToStrike
    return dice.choice(sorted(pids))


def _workers(offhook: Installation) -> list[int]:
    scheduler = offhook.scheduler()
    return [pid for pid in offhook.workers() if pid != scheduler]


class NothingToStrike(Exception):
    """There is no such process at the moment."""


# Audit


@dataclass
class Findings:
    """What a handler got, compared with the accepted events.

    Attributes:
        lost: accepted, and never delivered.
        disordered: first delivered after a later event of their call.
        renamed: delivered again with another id.
        duplicates: number of repeated deliveries.
    """

    lost: list[Event] = field(default_factory=list)
    disordered: list[Event] = field(default_factory=list)
    renamed: list[Event] = field(default_factory=list)
    duplicates: int = 0

    @property
    def faultless(self) -> bool:
        """Return whether every promise is kept."""
        return not (self.lost or self.disordered or self.renamed)


def audit(accepted: Mapping[Event, float], delivered: Sequence[Delivery]) -> Findings:
    """Compare the accepted events with those that one handler got.

    An event without a response may be delivered or not, at any place: its client does not know.
    """
    findings = Findings()
    ids: dict[Event, str] = {}
    latest: dict[str, int] = defaultdict(lambda: -1)
    for event_id, call, n, _ in delivered:
        event = (call, n)
        if event in ids:
            findings.duplicates += 1
            if ids[event] != event_id:
                findings.renamed.append(event)
            continue
        ids[event] = event_id
        if event in accepted:
            if n < latest[call]:
                findings.disordered.append(event)
            latest[call] = max(latest[call], n)
    findings.lost = [event for event in accepted if event not in ids]
    return findings


# Rounds


def deliveries(offhook: Installation, handler: str) -> list[Delivery]:
    """Return what a handler got so far, in order."""
    path = offhook.output / handler
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        (i, call, int(n), float(moment)) for i, call, n, moment in (line.split() for line in lines)
    ]


@dataclass
class Strike:
    """One fault. `recovered`: the longest silence of a steady handler after its end, in seconds."""

    kind: str
    began: float = 0.0
    ended: float = 0.0
    recovered: float = 0.0


@dataclass
class Round:
    """The faults of a round and its results."""

    seed: str
    sent: int
    accepted: int
    strikes: list[Strike]
    findings: dict[str, Findings]
    log: str

    @property
    def faultless(self) -> bool:
        """Return whether every promise is kept."""
        return all(findings.faultless for findings in self.findings.values())

    def longest_recovery(self) -> Strike | None:
        """Return the fault with the longest recovery."""
        return max(self.strikes, key=lambda strike: strike.recovered, default=None)

    def __str__(self) -> str:
        lost = sum(len(found.lost) for found in self.findings.values())
        disordered = sum(len(found.disordered) for found in self.findings.values())
        duplicates = sum(found.duplicates for found in self.findings.values())
        longest = self.longest_recovery()
        slowest = f"{longest.recovered:.1f} s after {longest.kind}" if longest else "-"
        kinds = Counter(strike.kind for strike in self.strikes)
        faults = ", ".join(f"{kind} {times}" for kind, times in kinds.items())
        return (
            f"seed {self.seed}: {self.accepted} of {self.sent} accepted, lost {lost}, "
            f"out of order {disordered}, duplicates {duplicates}, "
            f"longest recovery {slowest}; {faults}"
        )


def run_round(
    folder: Path,
    seed: str,
    seconds: float,
    faults: Sequence[str] | None = None,
    *,
    calls: int = 12,
    pause: float = 0.08,
) -> Round:
    """Cause faults for some seconds, let all events be delivered, and compare.

    Args:
        folder: an empty one, for this round.
        seed: of all random choices.
        faults: these, one after another with a recovery in between; random ones if not given.
        calls: number of concurrent calls.
        pause: seconds between two events of a call.
    """
    dice = Random(seed)
    output = StringIO()
    with redirect_stdout(output), Installation.running(folder, HANDLERS) as offhook:
        callers = Callers(offhook.port, calls=calls, pause=pause)
        callers.start()
        try:
            wait_until(lambda: _all_got_some(offhook, 0.0), "events are delivered at the start")
            if faults is None:
                strikes = _strike_at_random(offhook, dice, seconds)
            else:
                strikes = [_strike_and_recover(offhook, kind, dice) for kind in faults]
            ended = max((strike.ended for strike in strikes), default=0.0)
            with suppress(AssertionError):  # the audit explains it better
                wait_until(lambda: _all_got_some(offhook, ended), "recovered", SECONDS_TO_DRAIN)
        finally:
            callers.stop()
        wanted = set(callers.accepted)

        def all_there() -> bool:
            return all(
                wanted <= {(call, n) for _, call, n, _ in deliveries(offhook, name)}
                for name in NAMES
            )

        with suppress(AssertionError):  # the audit explains it better
            wait_until(all_there, "everything is delivered", SECONDS_TO_DRAIN)
        delivered = {name: deliveries(offhook, name) for name in NAMES}
        for strike in strikes:
            later = [other.began for other in strikes if other.began > strike.ended]
            until = min([*later, callers.stopped])
            strike.recovered = _longest_silence(strike.ended, until, delivered)
        log = offhook.log.read_text()
    findings = {name: audit(callers.accepted, delivered[name]) for name in NAMES}
    return Round(seed, callers.sent, len(wanted), strikes, findings, log)


def _strike_at_random(offhook: Installation, dice: Random, seconds: float) -> list[Strike]:
    strikes = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.1, 3))
        kinds = dice.sample(sorted(FAULTS), k=dice.choice([1, 1, 1, 2]))
        if len({kind.partition(" ")[2] for kind in kinds}) < len(kinds):
            continue  # a process cannot be killed and stopped at once
        struck = [Strike(kind) for kind in kinds]
        fates = [Random(dice.random()) for _ in kinds]
        threads = [
            threading.Thread(target=_strike, args=(offhook, strike, fate))
            for strike, fate in zip(struck, fates, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        strikes += [strike for strike in struck if strike.ended]
    return strikes


def _strike(offhook: Installation, strike: Strike, dice: Random) -> None:
    # If there is no process to choose, the other fault of the pair was faster.
    with suppress(NothingToStrike, StopIteration, redis.RedisError):
        strike.began = time.time()
        FAULTS[strike.kind](offhook, dice)
        strike.ended = time.time()


def _strike_and_recover(offhook: Installation, kind: str, dice: Random) -> Strike:
    strike = Strike(kind, time.time())
    FAULTS[kind](offhook, dice)
    strike.ended = time.time()
    time.sleep(1.5)  # a stopping process may still deliver something
    now = time.time()
    wait_until(lambda: _all_got_some(offhook, now), f"recovered from {kind}", 60)
    return strike


def _all_got_some(offhook: Installation, since: float) -> bool:
    latest = [deliveries(offhook, name)[-1:] for name in STEADY]
    return all(found and found[0][3] > since for found in latest)


def _longest_silence(
    since: float, until: float, delivered: Mapping[str, Sequence[Delivery]]
) -> float:
    """Measure how long a handler was silent. The load never pauses, so it was not served then."""
    longest = 0.0
    for name in STEADY:
        moments = [moment for *_, moment in delivered[name] if since < moment < until]
        edges = [since, *moments, *([] if moments else [until])]
        longest = max(longest, *(after - before for before, after in pairwise(edges)))
    return longest


# Command line


def main() -> int:
    """Run rounds. Return 1 at the first broken promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="of faults in each round")
    parser.add_argument("--seed", default=f"{random.randrange(10**6)}")
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        seed = options.seed if number == 0 else f"{options.seed}.{number}"
        print(f"round {number + 1} of {options.rounds}, seed {seed}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="offhook-storm-"))
        one = run_round(folder, seed, options.seconds)
        rounds.append(one)
        print(f"  {one}", flush=True)
        if not one.faultless:
            print(f"  {one.findings}\n  what it left is in {folder}")
            break
        shutil.rmtree(folder)
    print(_summary(rounds))
    return 0 if all(one.faultless for one in rounds) else 1


def _summary(rounds: Sequence[Round]) -> str:
    strikes = [strike for one in rounds for strike in one.strikes]
    lines = [f"{'fault':<20}{'times':>6}{'longest recovery':>20}"]
    for kind, times in Counter(strike.kind for strike in strikes).most_common():
        longest = max(strike.recovered for strike in strikes if strike.kind == kind)
        lines.append(f"{kind:<20}{times:>6}{longest:>18.1f} s")
    findings = [found for one in rounds for found in one.findings.values()]
    lines.append(
        f"{len(rounds)} rounds, {sum(one.accepted for one in rounds)} events accepted for "
        f"{len(NAMES)} handlers, {len(strikes)} faults: "
        f"lost {sum(len(found.lost) for found in findings)}, "
        f"out of order {sum(len(found.disordered) for found in findings)}, "
        f"duplicates {sum(found.duplicates for found in findings)}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
