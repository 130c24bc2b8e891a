"""A round of a storm: faults for some seconds, the recovery, and the audit."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import redis

from tests.chaos.audit import Delivery, Findings, audit, deliveries
from tests.chaos.audited import FOR_ALL, STEADY, Audited, handlers
from tests.chaos.faults import FAULTS, choose
from tests.chaos.load import Callers
from tests.chaos.replicated import ReplicatedServer
from tests.chaos.scene import NothingToStrike, Scene
from tests.installation import Installation, wait_until

SECONDS_TO_DRAIN = 120.0
_DESCRIPTORS = 1024  # of the receiver, fewer than a flood of connections takes
_URL_RATE = 15.0  # of which half a minute's worth may come at once: no caller sends as much
_REPLICATED = 0.25  # of the rounds


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

    def broken(self) -> dict[str, Findings]:
        """Return the findings of the handlers whose promises are not kept."""
        return {name: found for name, found in self.findings.items() if not found.faultless}

    def __str__(self) -> str:
        lost = sum(len(found.lost) for found in self.findings.values())
        disordered = sum(len(found.disordered) for found in self.findings.values())
        mixed = sum(len(found.mixed) for found in self.findings.values())
        duplicates = sum(found.duplicates for found in self.findings.values())
        longest = self.longest_recovery()
        slowest = f"{longest.recovered:.1f} s after {longest.kind}" if longest else "-"
        kinds = Counter(strike.kind for strike in self.strikes)
        faults = ", ".join(f"{kind} {times}" for kind, times in kinds.items())
        return (
            f"seed {self.seed}: {self.accepted} of {self.sent} accepted, lost {lost}, "
            f"out of order {disordered}, mixed {mixed}, duplicates {duplicates}, "
            f"longest recovery {slowest}; {faults}"
        )


def run_round(
    folder: Path,
    seed: str,
    seconds: float,
    faults: Sequence[str] | None = None,
    *,
    count: int = len(FOR_ALL),
    calls: int = 12,
    pause: float = 0.08,
) -> Round:
    """Cause faults for some seconds, let all events be delivered, and compare.

    Args:
        folder: an empty one, for this round.
        seed: of all random choices.
        faults: these, one after another with a recovery in between; random ones if not given.
        count: number of handlers.
        calls: number of concurrent calls.
        pause: seconds between two events of a call.
    """
    dice = Random(seed)
    output = StringIO()
    configuration, audited = handlers(count)
    replicated = dice.random() < _REPLICATED
    if faults is not None:
        replicated = any(FAULTS[kind].needs_replica for kind in faults)
    settings: dict[str, Any] = {"url_rate": _URL_RATE}
    with redirect_stdout(output), ExitStack() as stack:
        servers = ReplicatedServer(folder, stack) if replicated else None
        if servers is not None:
            settings |= {"redis_url": servers.url, "durability": "replica", "replicas": 1}
        offhook = stack.enter_context(
            Installation.running(folder, configuration, descriptors=_DESCRIPTORS, **settings)
        )
        callers = Callers(offhook.port, calls=calls, pause=pause)
        scene = Scene(offhook, callers, servers)
        callers.start()
        try:
            wait_until(lambda: _all_got_some(offhook, 0.0), "events are delivered at the start", 60)
            if faults is None:
                strikes = _strike_at_random(scene, dice, seconds)
            else:
                strikes = [_strike_and_recover(scene, kind, dice) for kind in faults]
            ended = max((strike.ended for strike in strikes), default=0.0)
            with suppress(AssertionError):  # the audit explains it better
                wait_until(lambda: _all_got_some(offhook, ended), "recovered", SECONDS_TO_DRAIN)
        finally:
            callers.stop()
        _drain(scene, audited)
        delivered = {each.name: deliveries(offhook, each.name) for each in audited}
        for strike in strikes:
            later = [other.began for other in strikes if other.began > strike.ended]
            until = min([*later, callers.stopped])
            strike.recovered = _longest_silence(strike.ended, until, delivered)
        log = offhook.log.read_text()
    findings = {
        each.name: audit(each.wanted(callers.accepted), delivered[each.name], each.may_get)
        for each in audited
    }
    return Round(seed, callers.sent, len(callers.accepted), strikes, findings, log)


def _drain(scene: Scene, audited: Sequence[Audited]) -> None:
    """Wait until every handler has got all that it wanted, or nothing comes for a long time."""
    waiting = {each.name: set(each.wanted(scene.callers.accepted)) for each in audited}
    until = time.monotonic() + SECONDS_TO_DRAIN
    while waiting and time.monotonic() < until:
        for name, wanted in list(waiting.items()):
            missing = wanted - {(c, n) for _, c, n, _ in deliveries(scene.offhook, name)}
            if len(missing) < len(wanted):
                until = time.monotonic() + SECONDS_TO_DRAIN
            waiting[name] = missing
            if not missing:
                del waiting[name]
        time.sleep(0.2)


def _strike_at_random(scene: Scene, dice: Random, seconds: float) -> list[Strike]:
    strikes = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.1, 3))
        struck = [Strike(kind) for kind in choose(dice, replicated=scene.replicated is not None)]
        fates = [Random(dice.random()) for _ in struck]
        threads = [
            threading.Thread(target=_strike, args=(scene, strike, fate))
            for strike, fate in zip(struck, fates, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        strikes += [strike for strike in struck if strike.ended]
    return strikes


def _strike(scene: Scene, strike: Strike, dice: Random) -> None:
    # If there is no process to choose, the other fault of the pair was faster.
    with suppress(NothingToStrike, ProcessLookupError, redis.RedisError):
        strike.began = time.time()
        FAULTS[strike.kind].strike(scene, dice)
        strike.ended = time.time()


def _strike_and_recover(scene: Scene, kind: str, dice: Random) -> Strike:
    strike = Strike(kind, time.time())
    FAULTS[kind].strike(scene, dice)
    strike.ended = time.time()
    time.sleep(1.5)  # a stopping process may still deliver something
    now = time.time()
    wait_until(lambda: _all_got_some(scene.offhook, now), f"recovered from {kind}", 60)
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
