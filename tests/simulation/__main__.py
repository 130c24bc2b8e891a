"""Simulate receiver, inbox and servers with faults: search for defects, or repeat a finding."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from random import Random

from tests.simulation.defects import DEFECTS, RARE_DEFECTS
from tests.simulation.runner import Result, Task, isolated, scenario, simulate
from tests.simulation.scenarios import SCENARIOS, pairs, singles
from tests.simulation.troubles import TROUBLES
from tests.simulation.world import Plan


def main() -> None:
    asked = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of strings must have the same order
        os.environ["PYTHONHASHSEED"] = "0"
        arguments = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execv(sys.executable, arguments)  # noqa: S606
    if asked.seed is None and asked.faults is None:
        found = [
            _search(_results(asked, name, defect), asked, name or defect)
            for name in (SCENARIOS if asked.scenario == "all" else [asked.scenario])
            for defect in (DEFECTS if asked.defect == "all" else [asked.defect])
        ]
        sys.exit(any(found))
    with _put_in(asked.defect) as plan:
        if asked.seed is not None:
            sys.exit(_trace(lambda seed: simulate(seed, _show, plan, asked.trouble), asked.seed))
        run = partial(scenario, asked.scenario, trace=_show)
        sys.exit(_trace(run, _faults(asked.faults)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="simulate this seed and print its trace")
    parser.add_argument("--first", type=int, default=0, help="first seed of a search")
    parser.add_argument("--count", type=int, default=1000, help="number of seeds of a search")
    parser.add_argument("--part", default="1/1", help="this part of the search, such as 1/2")
    parser.add_argument("--seconds", type=float, default=1e9, help="time limit of a search")
    parser.add_argument(
        "--scenario", choices=[*SCENARIOS, "all"], help="a fault at every command of this one"
    )
    parser.add_argument("--pairs", action="store_true", help="faults at pairs of commands")
    parser.add_argument("--faults", help='repeat a finding: "12 crash before, 40 lost"')
    parser.add_argument("--trouble", choices=TROUBLES, help="make this trouble in each simulation")
    parser.add_argument(
        "--defect", choices=[*DEFECTS, *RARE_DEFECTS, "all"], help="put this defect in first"
    )
    return parser.parse_args()


@contextmanager
def _put_in(defect: str | None) -> Iterator[Plan | None]:
    """Put a defect in. Return what simulations that look for it are about, if that matters."""
    known = DEFECTS | RARE_DEFECTS
    with known[defect].put_in() if defect else nullcontext():
        yield known[defect].plan if defect else None


def _results(
    asked: argparse.Namespace, scenario_name: str | None, defect: str | None
) -> Generator[Result, None, None]:
    part, parts = map(int, asked.part.split("/"))
    with _put_in(defect) as plan:
        if scenario_name is None:
            seeds = range(asked.first + part - 1, asked.first + asked.count, parts)
            yield from isolated(seeds, lambda seed: simulate(seed, None, plan, asked.trouble))
            return
        run = partial(scenario, scenario_name)
        [whole] = isolated([{}], run)
        found = list(pairs(whole.commands) if asked.pairs else singles(whole.commands))
        if asked.pairs:
            Random(0).shuffle(found)  # so that a search with a time limit looks everywhere
        yield from isolated(found[part - 1 :: parts], run)


def _search(
    results: Generator[Result, None, None], asked: argparse.Namespace, name: str | None
) -> bool:
    """Print what is found, and the sums. Return whether anything was.

    Args:
        name: of the scenario or of the defect.
    """
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
    results.close()
    took = time.perf_counter() - began
    print(
        (f"{name}: " if name else "")
        + f"{number} simulations, {simulated / 3600:.2f} hours in {took:.1f} s "
        f"({simulated / took:.0f} times real time), {commands} commands, "
        f"{findings} findings; faults: "
        + ", ".join(f"{kind} {times}" for kind, times in faults.most_common())
    )
    return findings > 0


def _name(result: Result) -> str:
    if isinstance(result.seed, int):
        return f"--seed {result.seed}"
    name, faults = result.seed
    shown = ", ".join(f"{number} {kind}" for number, kind in faults.items())
    return f'--scenario {name} --faults "{shown}"'


def _faults(text: str) -> dict[int, str]:
    words = (each.strip().partition(" ") for each in text.split(","))
    return {int(number): kind for number, _, kind in words}


def _trace(run: Callable[[Task], Result], task: Task) -> bool:
    [result] = isolated([task], run)
    print(result)
    return result.finding is not None


def _show(line: str) -> None:
    print(line, flush=True)


main()
