"""A short storm: single faults with recovery, then a round of random ones."""

import random
from pathlib import Path
from typing import TypedDict

import pytest

from tests.chaos.hostile_faults import FLOOD
from tests.chaos.rounds import Round, run_round


class Load(TypedDict):
    calls: int
    pause: float


# Seeds with short pauses; workers stop during the partition of the second.
SHORT, PARTITIONED = "short 1243", "short 287"
LOAD: Load = {"calls": 4, "pause": 0.15}  # small, so that it does not affect other tests
FAULTS = [
    "kill all work horses",
    "kill all workers",
    "kill receiver",
    "kill server",
    "kill everybody",
    "stall server",
    "kill connections",
    "flush scripts",
    "reload",
]


def check(found: Round) -> None:
    print(found)
    print({strike.kind: strike.recovered for strike in found.strikes})
    if not found.faultless:
        pytest.fail(f"seed {found.seed}: {found.broken()}\n{found.log[-20_000:]}")


def test_each_fault_loses_nothing_and_heals_within_seconds(tmp_path: Path) -> None:
    found = run_round(tmp_path, "the same every time", 0, FAULTS, **LOAD)
    check(found)
    assert "changed to version" in found.log
    # What waits for a time limit of RQ's needs a minute.
    slow = {s.kind: s.recovered for s in found.strikes if s.recovered > 40}
    assert not slow, "recovery took longer than 40 s"


def test_misbehaving_handlers_hostile_clients_and_an_upgrade_cost_no_event(tmp_path: Path) -> None:
    said = {
        "block handler": "handler blocking behaves: it runs with the others again",
        "crash handler": "handler crashing behaves: it runs with the others again",
        "exhaust descriptors": "",
        "open idle connections": "connections, because too many were open",
        "flood without token": "callbacks with a wrong token",
        "flood one url": "callbacks above the `url_rate` of their URL (last: main/0003*666)",
        "attack receiver": "",
        "poison stream": "cannot be read, set aside",
        "upgrade": "taken over from an earlier version",
    }
    found = run_round(tmp_path, SHORT, 0, [*said], **LOAD)
    check(found)
    assert [each for each in said.values() if each not in found.log] == []
    assert found.sent - FLOOD < found.accepted < found.sent  # the flood was limited, no caller


def test_partition_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    found = run_round(tmp_path, PARTITIONED, 0, ["partition replica"], **LOAD)
    check(found)
    assert "events go to the journal" in found.log


def test_random_faults_lose_nothing(tmp_path: Path) -> None:
    check(run_round(tmp_path, f"{random.randrange(10**6)}", 5, **LOAD, count=30))
