"""Redis is down while callbacks arrive: none is refused or lost, and each call stays in order."""

import threading
import time
from contextlib import suppress
from pathlib import Path

from offhook.inbox import keys
from tests.installation import Installation, Outcome, audit, wait_until
from tests.processes import children, runs

HANDLERS = """
[handlers.first]
use = "tests.recorders:record"
[handlers.second]
use = "tests.recorders:record"
"""
NAMES = ["first", "second"]


def journals(offhook: Installation) -> list[Path]:
    """Return the non-empty journals."""
    found = []
    for path in (offhook.folder / "journal").iterdir():
        with suppress(FileNotFoundError):  # it was just emptied, and deleted
            found += [path] if path.stat().st_size else []
    return found


def test_nothing_is_refused_while_redis_is_down(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        outcomes: list[Outcome] = []
        over = threading.Event()

        def load() -> None:
            while not over.wait(0.1):
                outcomes.append(offhook.load(500, name=f"turn-{len(outcomes)}"))

        loading = threading.Thread(target=load)
        loading.start()
        try:
            wait_until(lambda: len(outcomes) > 1, "some turns are over")
            offhook.redis.stop()
            wait_until(lambda: bool(journals(offhook)), "events are in the journal")
            offhook.redis.start()
            turns = len(outcomes)
            wait_until(lambda: len(outcomes) > turns + 2, "more turns are over")
        finally:
            over.set()
            loading.join()
        outcome = Outcome()
        for each in outcomes:
            outcome.accepted.update(each.accepted)
            outcome.refused += each.refused
        assert (outcome.count, outcome.refused) == (500 * len(outcomes), 0)
        offhook.wait_for_all(outcome, NAMES)
        for name in NAMES:
            # Deliveries in flight when Redis went down may be repeated.
            audit(outcome, offhook.delivered(name), repeats=True)
        wait_until(lambda: not journals(offhook), "the journals are empty")
        with offhook.client() as redis:
            wait_until(lambda: redis.hget(keys.RECEIVED, "journaled"), "journaled is counted")
            assert 0 < int(redis.hget(keys.RECEIVED, "journaled")) < outcome.count


def test_receiver_killed_while_redis_is_down_loses_nothing(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        before = offhook.load(500, name="before")
        offhook.wait_for_all(before, NAMES)
        offhook.redis.stop()
        outcome = offhook.load(2_000, connections=16, name="while")
        assert (outcome.count, outcome.refused) == (2_000, 0)
        killed = Outcome()

        def kill() -> None:
            wait_until(lambda: killed.count > 500, "some are accepted")
            offhook.receiver.kill()

        killing = threading.Thread(target=kill)
        killing.start()
        offhook.load(5_000, connections=16, name="killed", outcome=killed)
        killing.join()
        offhook.receiver.wait()
        assert killed.count > 0
        assert killed.refused > 0
        assert journals(offhook)
        offhook.receiver = offhook.start_receiver()
        wait_until(offhook.is_ready, "the receiver is ready")
        after = offhook.load(500, name="after")
        assert (after.count, after.refused) == (500, 0)
        assert len(journals(offhook)) == 2
        offhook.redis.start()
        for each in (before, killed, after):
            outcome.accepted.update(each.accepted)
        offhook.wait_for_all(outcome, NAMES)
        for name in NAMES:
            delivered = offhook.delivered(name)
            # Events whose response the kill cut off are stored, too.
            unanswered = {
                (call, n)
                for _, call, n in delivered
                if call in killed.accepted or call.startswith("killed")
            } - {(call, n) for call, numbers in killed.accepted.items() for n in numbers}
            assert len(unanswered) <= 16
            known = [one for one in delivered if one[1:] not in unanswered]
            audit(outcome, known, repeats=True)
        wait_until(lambda: not journals(offhook), "the journals are empty")


def test_outage_is_a_few_lines_in_the_workers_log(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        offhook.wait_for_all(offhook.load(100, name="before"), NAMES)
        offhook.redis.stop()
        time.sleep(10)  # until RQ's workers give up
        offhook.redis.start()
        after = offhook.load(100, name="after")
        offhook.wait_for_all(after, NAMES)
        wait_until(
            lambda: (
                '"offhook.scheduler","message":"Redis answers again"' in offhook.log.read_text()
            ),
            "the end of the outage is logged",
        )
        said = offhook.log.read_text()
    assert "Redis does not answer" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) < 60, said


def test_workers_whose_supervisor_is_killed_while_redis_is_down_end(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        wait_until(lambda: len(offhook.serving()) == 2, "both serve")
        horses = offhook.serving()
        serving = [pid for pid in offhook.workers() if {*horses} & {*children(pid)}]
        others = [pid for pid in offhook.workers() if pid not in serving]
        serving += horses
        offhook.redis.stop()
        time.sleep(3)  # they notice
        offhook.supervisor.kill()
        offhook.supervisor.wait()
        wait_until(lambda: not any(map(runs, others)), "those that serve nothing have ended")
        offhook.redis.start()  # for those that serve: they have to give back their partitions
        wait_until(lambda: not any(map(runs, serving)), "the others have ended")
        offhook.supervisor = offhook.start_supervisor()
