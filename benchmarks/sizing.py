"""What a system takes: a calculation, and a simulation of its busiest hour.

    python -m benchmarks.sizing --extensions 1000000 --calls 8 --handlers 3

Second by second, calls begin at random (Poisson), with the peaks that a minute and a television
advertisement bring; each makes its callbacks at its own moments. What comes in faster than the
processes can do waits. Give it what `benchmarks.receive` and `benchmarks.deliver` say of your
machine.
"""

import argparse
import math
import random
from dataclasses import dataclass

EVENTS_PER_CALL = 6.0  # internal and queue calls have more legs, missed ones fewer events
BUSY_HOUR = 0.17  # of a day's calls, the usual figure for offices
CALL_SECONDS = 150.0
BYTES_PER_EVENT = 900  # what `benchmarks.memory` says, and something for the marks


@dataclass(frozen=True)
class Load:
    """What comes in.

    Attributes:
        calls: begun in the busiest hour.
        burst: how much stronger the strongest minute of it is.
    """

    calls: float
    burst: float


@dataclass(frozen=True)
class Outcome:
    """Events a second in the mean and in the worst second, and what waited, in seconds."""

    mean: float
    worst: float
    longest_wait: float
    p99_wait: float


def simulate(load: Load, capacity: float, seed: int = 1) -> Outcome:
    """An hour of `load`, with so many events a second as can be done."""
    chance = random.Random(seed)
    later: list[float] = [0.0] * (3600 + int(CALL_SECONDS * 10))
    strongest = chance.randrange(60)
    waiting, waits, seen = 0.0, [], []
    for second in range(3600):
        stronger = load.burst if second // 60 == strongest else chance.uniform(0.8, 1.2)
        begun = _poisson(chance, load.calls / 3600 * stronger)
        # Half of a call's events come at its beginning, the others when it is answered and ends.
        later[second] += begun * EVENTS_PER_CALL / 2
        for part in (0.1, 1.0):
            spread = max(1, round(CALL_SECONDS * part))
            for step in range(4):
                moment = second + 1 + round(spread * (0.25 + 0.5 * step))
                later[moment] += begun * EVENTS_PER_CALL / 16
        events = later[second]
        seen.append(events)
        waiting = max(0.0, waiting + events - capacity)
        waits.append(waiting / capacity)
    waits.sort()
    return Outcome(sum(seen) / len(seen), max(seen), waits[-1], waits[int(len(waits) * 0.99)])


def _poisson(chance: random.Random, mean: float) -> int:
    if mean > 50:
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    product, count, limit = chance.random(), 0, math.exp(-mean)
    while product > limit:
        product *= chance.random()
        count += 1
    return count


def needed(load: Load, each: float, patience: float = 1.0) -> int:
    """The processes of `each` events a second with which nothing waits longer than `patience`."""
    count = 1
    while simulate(load, count * each).longest_wait > patience:
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extensions", type=int, default=1_000_000)
    parser.add_argument("--calls", type=float, default=8.0, help="of an extension, a day")
    parser.add_argument("--handlers", type=int, default=3, help="that get every event")
    parser.add_argument("--burst", type=float, default=3.0, help="the strongest minute, times mean")
    parser.add_argument("--accept", type=float, default=10_000, help="callbacks/s of a receiver")
    parser.add_argument("--deliver", type=float, default=5_000, help="deliveries/s of a dispatch")
    parser.add_argument("--keep-days", type=float, default=7.0, help="that events are kept")
    parser.add_argument("--quick", action="store_true", help="as it is: it is quick")
    given = parser.parse_args()
    a_day = given.extensions * given.calls
    load = Load(a_day * BUSY_HOUR, given.burst)
    outcome = simulate(load, given.accept)
    events_a_day = a_day * EVENTS_PER_CALL
    print(f"{given.extensions:,} extensions, {given.calls:g} calls a day each:")
    print(f"  callbacks a day            {events_a_day:15,.0f}")
    print(f"  callbacks/s, busiest hour  {outcome.mean:15,.0f}   worst second {outcome.worst:,.0f}")
    receivers, dispatches = needed(load, given.accept), needed(load, given.deliver)
    print(f"  receiver processes         {receivers:15,}   of {given.accept:,.0f} callbacks/s each")
    print(f"  partitions                 {dispatches:15,}   of {given.deliver:,.0f} deliveries/s")
    workers = dispatches * given.handlers
    print(f"  dispatch processes         {workers:15,}   {given.handlers} handlers")
    kept = events_a_day * given.keep_days * BYTES_PER_EVENT
    print(f"  memory of the server       {kept / 1e9:12,.0f} GB   for {given.keep_days:g} days")


if __name__ == "__main__":
    main()
