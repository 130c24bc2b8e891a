"""A storm: an installation under load, its parts killed, stopped, cut off and attacked at random.

    python -m tests.chaos.storm --rounds 20 --seconds 20 --handlers 200 --seed 7

Everything is real: processes, signals, servers and their files on the disk, clients. Each round
prints its seed; `--rounds 1 --seed THAT` chooses the same faults and pauses again.
"""

import argparse
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.rounds import Round, run_round


def main() -> int:
    """Run rounds. Return 1 at the first broken promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="of faults in each round")
    parser.add_argument("--handlers", type=int, default=20, help="number of handlers")
    parser.add_argument("--seed", default=f"{random.randrange(10**6)}")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of attackers' connections
    rounds = []
    for number in range(options.rounds):
        seed = options.seed if number == 0 else f"{options.seed}.{number}"
        print(f"round {number + 1} of {options.rounds}, seed {seed}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="offhook-storm-"))
        one = run_round(folder, seed, options.seconds, count=options.handlers)
        rounds.append(one)
        print(f"  {one}", flush=True)
        if not one.faultless:
            print(f"  {one.broken()}\n  what it left is in {folder}")
            break
        shutil.rmtree(folder)
    print(_summary(rounds))
    return 0 if all(one.faultless for one in rounds) else 1


def _summary(rounds: Sequence[Round]) -> str:
    strikes = [strike for one in rounds for strike in one.strikes]
    lines = [f"{'fault':<24}{'times':>6}{'longest recovery':>20}"]
    for kind, times in Counter(strike.kind for strike in strikes).most_common():
        longest = max(strike.recovered for strike in strikes if strike.kind == kind)
        lines.append(f"{kind:<24}{times:>6}{longest:>18.1f} s")
    findings = [found for one in rounds for found in one.findings.values()]
    audited = max(len(one.findings) for one in rounds)
    lines.append(
        f"{len(rounds)} rounds, {sum(one.accepted for one in rounds)} events accepted for "
        f"{audited} handlers that get some, {len(strikes)} faults: "
        f"lost {sum(len(found.lost) for found in findings)}, "
        f"out of order {sum(len(found.disordered) for found in findings)}, "
        f"mixed {sum(len(found.mixed) for found in findings)}, "
        f"duplicates {sum(found.duplicates for found in findings)}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
