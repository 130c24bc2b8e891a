"""A short storm: single faults with recovery, then a round of random ones."""

import random
from pathlib import Path
from typing import TypedDict

import pytest

from tests.chaos.storm import Round, run_round


class Load(TypedDict):
    calls: int
    pause: float


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
]


def check(found: Round) -> None:
    print(found)
    print({strike.kind: strike.recovered for strike in found.strikes})
    if not found.faultless:
        pytest.fail(f"seed {found.seed}: {found.findings}\n{found.log[-20_000:]}")


def test_each_fault_loses_nothing_and_heals_within_seconds(tmp_path: Path) -> None:
    found = run_round(tmp_path, "the same every time", 0, FAULTS, **LOAD)
    check(found)
    slow = {s.kind: s.recovered for s in found.strikes if s.recovered > 10}
    assert not slow, "recovery took longer than 10 s"


def test_random_faults_lose_nothing(tmp_path: Path) -> None:
    check(run_round(tmp_path, f"{random.randrange(10**6)}", 5, **LOAD))
