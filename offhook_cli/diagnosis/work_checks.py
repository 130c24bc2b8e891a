"""Checks of the workers, and of each handler's deliveries."""

from collections.abc import Callable, Iterable, Iterator

from offhook.operations import status as problems
from offhook.operations.status import Status
from offhook_cli.diagnosis.findings import Finding, failed, passed, warned

_FAR = 1000  # events


def workers(seen: Status) -> Iterator[Finding]:
    """They run."""
    sentences = [*problems.missing_workers(seen)]
    yield from map(failed, sentences)
    running = sum(map(len, seen.workers.values()))
    if running and not sentences:
        yield passed(f"{running} workers run, at least one on each queue")


def scheduler(seen: Status) -> Iterator[Finding]:
    """It runs."""
    yield from _all_or(failed, problems.missing_scheduler(seen), "the scheduler runs")


def versions(seen: Status) -> Iterator[Finding]:
    """All processes run the configuration and the plugins of this machine."""
    if seen.versions:
        said = f"all processes run what is here, version {seen.versions[0].version}"
        yield from _all_or(warned, [*problems.different_versions(seen), *seen.loaded], said)


def lag(seen: Status) -> Iterator[Finding]:
    """Handlers keep up."""
    behind = [each for each in seen.handlers if each.lag > _FAR]
    for each in behind:
        yield warned(
            f"{each.name} is {each.lag:,} events behind: `offhook status --watch` shows whether it "
            "catches up; is its target slow?"
        )
    if seen.handlers and not behind:
        most = max(each.lag for each in seen.handlers)
        yield passed(f"no handler is far behind (at most {most:,} events)")


def redeliveries(seen: Status) -> Iterator[Finding]:
    """No call waits for a redelivery."""
    found = (
        f"{'1 call waits' if each.waiting == 1 else f'{each.waiting:,} calls wait'} for a "
        f"redelivery to {each.name}: `offhook tail --handler {each.name}` shows why they fail"
        for each in seen.handlers
        if each.waiting
    )
    yield from _all_or(warned, found, "no call waits for a redelivery")


def circuits(seen: Status) -> Iterator[Finding]:
    """No target is down."""
    found = (
        f"{each}; its events wait, `offhook tail` shows its errors"
        for each in problems.open_circuits(seen)
    )
    yield from _all_or(warned, found, "no circuit is open")


def pauses(seen: Status) -> Iterator[Finding]:
    """No handler is paused, or about to lose events."""
    found = (*problems.paused(seen), *seen.losing)
    yield from _all_or(warned, found, "no handler is paused")


def apart(seen: Status) -> Iterator[Finding]:
    """No handler had to be moved to a process of its own."""
    found = (
        f"{each}; the log of `offhook work` has its stack" for each in problems.running_apart(seen)
    )
    yield from _all_or(warned, found, "no handler had to be moved to a process of its own")


def dead_letters(seen: Status) -> Iterator[Finding]:
    """No delivery is out of attempts."""
    found = (*problems.with_dead_letters(seen), *problems.abandoned_letters(seen))
    yield from _all_or(warned, found, "there are no dead letters")


def leftovers(seen: Status) -> Iterator[Finding]:
    """No handler that is no longer configured has left something."""
    yield from map(warned, problems.leftover_positions(seen))


def _all_or(
    verdict: Callable[[str], Finding], sentences: Iterable[str], otherwise: str
) -> Iterator[Finding]:
    """A finding for each sentence; if there is none, that this is as it should be."""
    found = [*map(verdict, sentences)]
    yield from found or [passed(otherwise)]


WORKERS = (workers, scheduler, versions)
HANDLERS = (lag, redeliveries, circuits, pauses, apart, dead_letters, leftovers)
