"""Many handlers that want the same events share the memory and the turns."""

from typing import Any

import pytest

from offhook import CallEvent, Context
from offhook.inbox.partition import Item, Partition
from tests.events import event
from tests.workers.serving.bench import Bench
from workers.serving import runners
from workers.serving.runners import Runners


async def test_equal_handlers_do_not_fall_behind(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "MOST_OUTSTANDING", 400)
    read_alone = []
    shared_read = Partition.range

    async def counted(self: Partition, *arguments: Any) -> list[Item]:
        read_alone.append(arguments)
        return await shared_read(self, *arguments)

    monkeypatch.setattr(Partition, "range", counted)
    bench = Bench(redis_url, partitions=4)
    got = dict.fromkeys((f"h{n}" for n in range(40)), 0)
    most = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal most
        got[context.handler] += 1
        most = max(most, bench.server.runners.outstanding)

    for name in got:
        bench.plug(handle, name, concurrency=4)
    await bench.append(*(event(f"call-{n}", n) for n in range(300)))
    await bench.deliver()
    assert set(got.values()) == {300}
    assert read_alone == []
    assert most <= 800


async def test_work_of_busy_and_of_other_handlers_runs_in_turns() -> None:
    ran = []

    async def run(work: Any) -> None:
        ran.append(work.name)

    class Work:
        def __init__(self, name: str) -> None:
            self.name = name
            self.handler = None

    turns = Runners(run, lambda *_: None, lambda _: None)
    works: Any = {name: Work(name) for name in ("a", "b", "c", "x", "y", "z")}
    for name in "abc":
        turns.start(works[name])
    for name in "xyz":
        turns.start(works[name], first=True)
    while len(ran) < 6:
        await turns.pause()
    await turns.close()
    assert ran == ["x", "a", "y", "b", "z", "c"]
