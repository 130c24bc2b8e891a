"""Simulate receiver, inbox and servers with faults: search for defects, or repeat a finding."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from random import Random

from tests.simulation.defects import DEFECTS
from tests.simulation.runner import Result, scenario, simulate
from tests.simulation.scenarios import SCENARIOS, pairs, singles
from tests.simulation.troubles import TROUBLES
from tests.simulation.world import Plan


def main() -> None:
    asked = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of strings must have the same order
        os.environ["PYTHONHASHSEED"] = "0"
        arguments = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execv(sys.executable, arguments)  # noqa: S606
    defect = DEFECTS.get(asked.defect)
    plan = defect.plan if defect else None
    with defect.put_in() if defect else nullcontext():
        if asked.seed is not None:
            sys.exit(_trace(simulate(asked.seed, print, plan, asked.trouble)))
        if asked.crash:
            sys.exit(_trace(scenario(asked.scenario, _crashes(asked.crash), print)))
        sys.exit(_search(_results(asked, plan), asked))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="simulate this seed and print its trace")
    parser.add_argument("--first", type=int, default=0, help="first seed of a search")
    parser.add_argument("--count", type=int, default=1000, help="number of seeds of a search")
    parser.add_argument("--part", default="1/1", help="this part of the search, such as 1/2")
    parser.add_argument("--seconds", type=float, default=1e9, help="time limit of a search")
    parser.add_argument("--scenario", choices=SCENARIOS, help="crash at every command of this one")
    parser.add_argument("--pairs", action="store_true", help="crash at pairs of commands")
    parser.add_argument("--crash", help='repeat a finding of a scenario: "12 before, 40 after"')
    parser.add_argument("--trouble", choices=TROUBLES, help="make this trouble in each simulation")
    parser.add_argument("--defect", choices=sorted(DEFECTS), help="put this defect in first")
    return parser.parse_args()


def _results(asked: argparse.Namespace, plan: Plan | None) -> Iterator[Result]:
    part, parts = map(int, asked.part.split("/"))
    if asked.scenario is None:
        for seed in range(asked.first + part - 1, asked.first + asked.count, parts):
            yield simulate(seed, plan=plan, trouble=asked.trouble)
        return
    commands = scenario(asked.scenario, {}).commands
    found = list(pairs(commands) if asked.pairs else singles(commands))
    Random(0).shuffle(found)  # so that a search with a time limit looks everywhere
    for crashes in found[part - 1 :: parts]:
        yield scenario(asked.scenario, crashes)


def _search(results: Iterator[Result], asked: argparse.Namespace) -> bool:
    """Print what is found, and the sums. Return whether anything was."""
    began = time.perf_counter()
    number = commands = findings = 0
    simulated = 0.0
    faults: Counter[str] = Counter()
    for result in results:
        number += 1
        commands += result.commands
        simulated += result.simulated
        faults.update(result.faults)
        if result.finding:
            findings += 1
            print(f"{_name(result)}: {result.finding}", flush=True)
        late = time.perf_counter() - began > asked.seconds
        if late or (findings and asked.defect):
            break
    took = time.perf_counter() - began
    print(
        f"{number} simulations, {simulated / 3600:.2f} hours in {took:.1f} s "
        f"({simulated / took:.0f} times real time), {commands} commands, "
        f"{findings} findings; faults: "
        + ", ".join(f"{kind} {times}" for kind, times in faults.most_common())
    )
    return findings > 0


def _name(result: Result) -> str:
    if isinstance(result.seed, int):
        return f"--seed {result.seed}"
    name, crashes = result.seed
    shown = ", ".join(f"{number} {how.removeprefix('crash ')}" for number, how in crashes.items())
    return f'--scenario {name} --crash "{shown}"'


def _crashes(text: str) -> dict[int, str]:
    words = (each.split() for each in text.split(","))
    return {int(number): f"crash {how}" for number, how in words}


def _trace(result: Result) -> bool:
    print(result)
    return result.finding is not None


main()
