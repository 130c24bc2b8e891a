"""Handlers that sleep, block, fail or kill their process do not affect the others."""

from pathlib import Path

from tests.installation import Installation, audit, wait_until

HANDLERS = """
[handlers.good]
use = "tests.recorders:record"
[handlers.sleeping]
use = "tests.recorders:sleep_ten_seconds"
[handlers.blocking]
use = "tests.recorders:block_ten_seconds"
[handlers.broken]
use = "tests.recorders:always_raise"
[handlers.deadly]
use = "tests.recorders:die_on_poison"
retry = [1]
"""


def test_slow_and_broken_handlers_do_not_affect_others(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        for turn in range(5):
            outcome = offhook.load(200, name=f"turn-{turn}")
            good = offhook.delivered

            def has_all(turn: int = turn) -> bool:
                return len(good("good")) >= 200 * (turn + 1)  # noqa: B023

            # The good handler finishes each turn before the slow ones have done one.
            wait_until(has_all, "the good handler has all events")
            assert len(offhook.delivered("sleeping")) < 200
            assert len(offhook.delivered("blocking")) < 200
            audit(
                outcome,
                [d for d in offhook.delivered("good") if d[1].startswith(f"turn-{turn}-")],
                repeats=False,
            )
        assert offhook.delivered("broken") == []


def test_event_that_kills_its_process_becomes_a_dead_letter_alone(tmp_path: Path) -> None:
    handlers = """
[handlers.deadly]
use = "tests.recorders:die_on_poison"
retry = [1]
"""
    with Installation.running(tmp_path, handlers) as offhook:
        poison = offhook.load(2, per_call=2, name="poison")
        good = offhook.load(200, name="good")
        poison.accepted["poison-0"].remove(0)

        def all_but_the_poison() -> bool:
            return len({i for i, _, _ in offhook.delivered("deadly")}) == 201

        wait_until(all_but_the_poison, "all events but the deadly one are delivered", seconds=120)
        with offhook.client() as client:
            assert client.zcard("rq:failed:offhook.deadly.redeliver") == 1
        audit(
            good,
            [d for d in offhook.delivered("deadly") if d[1].startswith("good")],
            repeats=True,
        )
