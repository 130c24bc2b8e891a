"""Lanes: one task per call, and each call's entries in order."""

import asyncio

from offhook.event import to_stored
from offhook.inbox import Entry
from tests.events import event
from workers.delivery.lanes import Lanes


def entry(call: str, n: int) -> Entry:
    one = event(call, n)
    return Entry(str(n).encode(), n, one, to_stored(one))


async def test_lane_is_handed_out_to_one_task_at_a_time() -> None:
    lanes = Lanes()
    for n in range(2):
        lanes.add(entry("a", n))
    lanes.add(entry("b", 0))
    first, second = await lanes.take(), await lanes.take()
    assert {first.call, second.call} == {"main/a", "main/b"}
    lanes.add(entry("a", 2))  # a third entry for a lane in use
    third = asyncio.ensure_future(lanes.take())
    await asyncio.sleep(0)
    assert not third.done()
    lanes.give_back(first)
    assert (await third) is first
    assert [e.event.parameters["n"] for e in first.entries] == ["0", "1", "2"]


async def test_empty_lane_is_removed_when_given_back() -> None:
    lanes = Lanes()
    lanes.add(entry("a", 0))
    lane = await lanes.take()
    lane.entries.clear()
    lanes.give_back(lane)
    assert len(lanes) == 0
    assert "main/a" not in lanes
