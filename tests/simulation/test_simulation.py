"""Promises of receiver, inbox and servers hold in simulations with faults at every command.

Each search is a process of its own: it replaces the clock, and turns the garbage collector off.
"""

import os
import subprocess
import sys

from tests.simulation.defects import DEFECTS
from tests.simulation.scenarios import SCENARIOS


def test_simulations_find_nothing() -> None:
    search = _simulate(["--count", "300"])
    assert search.returncode == 0, search.stdout
    assert search.stdout.startswith("300 simulations")


def test_a_fault_at_any_command_loses_nothing() -> None:
    # Every fifth of six kinds of faults at each command: each command has one, in turn.
    search = _simulate(["--scenario", "all", "--part", "1/5"])
    assert search.returncode == 0, search.stdout
    for scenario in SCENARIOS:
        assert f"{scenario}: " in search.stdout


def test_each_defect_put_in_on_purpose_is_found() -> None:
    search = _simulate(["--defect", "all", "--count", "300"])
    assert search.stdout.count("Violation") == len(DEFECTS), search.stdout
    for defect in DEFECTS:
        assert f"{defect}: " in search.stdout


def test_handler_that_comes_back_is_not_forgotten_with_its_server() -> None:
    # The server had taken the handler over, and a flush from before called all finished. Where the
    # faults must be changes with the code: `--scenario move --pairs --defect claim` finds it anew.
    move = ("--scenario", "move", "--faults", "43 crash after, 177 crash after")
    found = _simulate([*move, "--defect", "claim"])
    assert "Violation" in found.stdout, found.stdout
    mended = _simulate([*move])
    assert mended.returncode == 0, mended.stdout


def test_a_seed_repeats_a_simulation_exactly() -> None:
    first, second = (_simulate(["--seed", "3"], hashing) for hashing in ("1", "random"))
    assert first.stdout == second.stdout
    assert first.stdout.count("\n") > 100


def test_faults_in_a_scenario_are_repeated() -> None:
    faults = "20 crash before, 30 crash after"
    search = _simulate(["--scenario", "deliver", "--faults", faults])
    assert search.stdout.count("is killed") == 2


def _simulate(arguments: list[str], hashing: str = "0") -> "subprocess.CompletedProcess[str]":
    """Run a search, which starts itself a second time unless sets have the order that it needs."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = os.environ | {"PYTHONHASHSEED": hashing}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
