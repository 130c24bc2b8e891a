"""The pace of a handler: what it finished between looks."""

import time

import pytest

from workers.serving.pace import Pace


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock that a test sets."""
    moment = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    return moment


def look(pace: Pace, now: list[float], seconds: float, finished: int) -> float | None:
    now[0] += seconds
    pace.finished += finished
    return pace.per_second()


def test_pace_is_the_better_of_two_windows(now: list[float]) -> None:
    pace = Pace()
    assert look(pace, now, 0, 0) is None
    assert look(pace, now, 0.3, 600) is None
    assert look(pace, now, 0.3, 0) == pytest.approx(2000)
    assert look(pace, now, 0.1, 500) == pytest.approx(2000)  # the window has not ended
    assert look(pace, now, 0.3, 0) == pytest.approx(1250)
    assert look(pace, now, 0.3, 3) == pytest.approx(1250)
    assert look(pace, now, 0.3, 0) == pytest.approx(10)


def test_pace_is_unknown_after_a_time_without_looks(now: list[float]) -> None:
    pace = Pace()
    assert look(pace, now, 0, 0) is None
    assert look(pace, now, 0.3, 3) is None
    assert look(pace, now, 0.3, 3) == pytest.approx(10)
    assert look(pace, now, 60, 3) is None
    assert look(pace, now, 0.3, 600) is None
    assert look(pace, now, 0.3, 600) == pytest.approx(2000)
