"""Promises of receiver, inbox and servers hold in simulations with faults at every command.

Each search is a process of its own: it replaces the clock, and turns the garbage collector off.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.simulation.defects import DEFECTS
from tests.simulation.scenarios import SCENARIOS


def test_a_thousand_simulations_find_nothing() -> None:
    parts = [["--count", "1000", "--part", f"{part}/2"] for part in (1, 2)]
    with ThreadPoolExecutor() as both:
        found = list(both.map(_simulate, parts))
    for search in found:
        assert search.returncode == 0, search.stdout
        assert search.stdout.startswith("500 simulations")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_at_any_command_loses_nothing(scenario: str) -> None:
    search = _simulate(["--scenario", scenario])
    assert search.returncode == 0, search.stdout
    assert int(search.stdout.split()[0]) > 50


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_put_in_on_purpose_is_found(defect: str) -> None:
    search = _simulate(["--defect", defect, "--count", "100"])
    assert search.returncode == 1
    assert "Violation" in search.stdout


def test_a_seed_repeats_a_simulation_exactly() -> None:
    first, second = (_simulate(["--seed", "3"]) for _ in range(2))
    assert first.stdout == second.stdout
    assert first.stdout.count("\n") > 100


def test_a_crash_in_a_scenario_is_repeated() -> None:
    search = _simulate(["--scenario", "deliver", "--crash", "20 before, 30 after"])
    assert search.stdout.count("is killed") == 2


def _simulate(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
