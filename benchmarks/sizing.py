"""Resources that a system needs: a calculation, and a simulation of its busiest hour.

    python -m benchmarks.sizing --extensions 1000000 --calls 8 --handlers 3

Second by second, calls start at random (a Poisson process), with one peak minute, as after a TV
advertisement; the callbacks of a call are spread over its duration. Events that exceed the capacity
wait. Pass the figures of `benchmarks.receive` and `benchmarks.deliver` for your machine; with a
cluster, those of `benchmarks.cluster`. What the server keeps of a call is the figure of
`benchmarks.memory`.
"""

import argparse
import math
import random
from dataclasses import dataclass

EVENTS_PER_CALL = 6.0  # internal and queue calls have more, missed calls fewer
BUSY_HOUR = 0.17  # part of a day's calls, the usual figure for offices
CALL_SECONDS = 150.0
# Bytes that the server keeps of a call with so many callbacks. Its events include those about it,
# which Offhook appends: call-started, call-answered, call-ended.
KEPT = {"events": 7_000, "calls": 640, "index of calls": 700, "record of deliveries": 560}
# Microseconds of a primary's core, in a cluster of three: `benchmarks.cluster` on a busy machine.
SERVER_ACCEPT, SERVER_DELIVER = 51.0, 90.0
RECORD_PER_HANDLER = 270  # more of the record for each handler that gets the callbacks


@dataclass(frozen=True)
class Load:
    """The load of the busiest hour.

    Attributes:
        calls: calls that start in it.
        burst: the peak minute, as a multiple of the mean.
    """

    calls: float
    burst: float


@dataclass(frozen=True)
class Outcome:
    """Events per second, mean and worst, and how long events waited, in seconds."""

    mean: float
    worst: float
    longest_wait: float
    p99_wait: float


def simulate(load: Load, capacity: float, seed: int = 1) -> Outcome:
    """Simulate an hour of `load` with a capacity in events per second."""
    chance = random.Random(seed)
    later: list[float] = [0.0] * (3600 + int(CALL_SECONDS * 10))
    peak = chance.randrange(60)
    waiting, waits, seen = 0.0, [], []
    for second in range(3600):
        factor = load.burst if second // 60 == peak else chance.uniform(0.8, 1.2)
        begun = _poisson(chance, load.calls / 3600 * factor)
        # Half of a call's events come when it starts, the others when it is answered and ends.
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
    """Return how many processes of `each` events/s keep every wait below `patience` seconds."""
    count = 1
    while simulate(load, count * each).longest_wait > patience:
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extensions", type=int, default=1_000_000, help="number of extensions")
    parser.add_argument("--calls", type=float, default=8.0, help="calls per extension per day")
    parser.add_argument("--handlers", type=int, default=3, help="handlers that get every event")
    parser.add_argument("--burst", type=float, default=3.0, help="peak minute / mean")
    parser.add_argument("--accept", type=float, default=10_000, help="callbacks/s per receiver")
    parser.add_argument("--deliver", type=float, default=5_000, help="deliveries/s per process")
    parser.add_argument(
        "--server-accept", type=float, default=SERVER_ACCEPT, help="a server's CPU µs per callback"
    )
    parser.add_argument(
        "--server-deliver", type=float, default=SERVER_DELIVER, help="its CPU µs per delivery"
    )
    parser.add_argument("--memory", type=float, default=128.0, help="GB of each server")
    parser.add_argument("--keep-days", type=float, default=7.0, help="days that events are kept")
    parser.add_argument(
        "--record", choices=("all", "failures"), default="all", help="as the setting `record`"
    )
    given = parser.parse_args()
    a_day = given.extensions * given.calls
    load = Load(a_day * BUSY_HOUR, given.burst)
    outcome = simulate(load, given.accept)
    events_a_day = a_day * EVENTS_PER_CALL
    print(f"{given.extensions:,} extensions, {given.calls:g} calls a day each:")
    print(f"  callbacks a day            {events_a_day:15,.0f}")
    print(f"  callbacks/s, busiest hour  {outcome.mean:15,.0f}   worst second {outcome.worst:,.0f}")
    receivers = needed(load, given.accept)
    servers = needed(load, given.deliver / given.handlers)
    print(f"  receiver processes         {receivers:15,}   of {given.accept:,.0f} callbacks/s each")
    print(f"  processes (workers)        {servers:15,}   of {given.deliver:,.0f} deliveries/s each")
    print(f"  partitions                 {max(16, servers):15,}   at least one per process")
    kept = KEPT | {
        "record of deliveries": KEPT["record of deliveries"] + RECORD_PER_HANDLER * given.handlers
        if given.record == "all"
        else 0
    }
    calls = a_day * given.keep_days
    print(
        f"  memory of the server       {_gigabytes(calls * sum(kept.values()))}   "
        f"for {given.keep_days:g} days, {sum(kept.values()):,} bytes a call"
    )
    for what, each in kept.items():
        print(f"    {what:<24} {_gigabytes(calls * each)}")
    busy = outcome.worst * (given.server_accept + given.handlers * given.server_deliver) / 1e6
    full = calls * sum(kept.values()) / given.memory / 1e9
    primaries = max(math.ceil(2 * full), math.ceil(busy))
    print(f"  servers (primaries)        {primaries:15,}   of {given.memory:g} GB, half used")
    print(f"  their CPU, worst second    {busy:15.2f}   cores in all")


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:12,.1f} GB"


if __name__ == "__main__":
    main()
