"""A test event: one handler gets it, by its own process, and nothing else changes."""

import pytest

from offhook import CallEvent, Context, PermanentError
from offhook.errors import ConfigError
from offhook.event import EventType
from offhook.inbox import Inbox
from offhook.operations.audit import changes
from offhook.operations.trials import as_trial, outcome_of, send_trial
from offhook.settings import HandlerSettings
from offhook.testing import sample_event
from tests.events import event
from tests.workers.serving.bench import Bench, until
from tests.workers.serving.conftest import bench, processes

__all__ = ["bench", "processes"]
POLICY = HandlerSettings(use="console", events=frozenset({EventType.HANGUP}))


async def test_one_handler_gets_it_and_its_outcome_is_on_record(bench: Bench) -> None:
    got: list[CallEvent] = []
    other = bench.record()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one)

    bench.plug(handle, "log")
    async with bench.serving():
        await bench.append(event())
        await until(lambda: len(got) == len(other) == 1)

        async def send(inbox: Inbox) -> None:
            await until(lambda: not bench.unfinished())
            length = await inbox.length(0)
            sent = await send_trial(inbox, "log", POLICY, "ruth", sample_event)
            made = await outcome_of(inbox, "log", sent.call, 20)
            assert made is not None
            assert (made.outcome, made.answer, made.event) == ("delivered", "", sent.id)
            assert (await outcome_of(inbox, "crm", sent.call, 0)) is None
            assert (await inbox.length(0)) == length
            [entry] = await changes(inbox.redis)
            assert (entry.by, entry.did) == ("ruth", "sent a test event (hangup) to log")

        await bench.with_inbox(send)
        await until(lambda: not bench.parked())
    assert got[1].type is EventType.HANGUP
    assert got[1].parameters["test"] == "1"
    assert got[1].call_id.startswith("test-")
    assert len(other) == 1


async def test_a_refusal_is_its_outcome(bench: Bench) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        raise PermanentError("410 Gone")

    async with bench.serving(handle):

        async def send(inbox: Inbox) -> None:
            sent = await send_trial(inbox, "crm", POLICY, "ruth", sample_event)
            made = await outcome_of(inbox, "crm", sent.call, 20)
            assert made is not None
            assert (made.outcome, made.answer) == ("dead", "410 Gone")

        await bench.with_inbox(send)


async def test_a_type_that_the_handler_does_not_get_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="crm gets hangup: choose one of these"):
        await bench.with_inbox(
            lambda inbox: send_trial(inbox, "crm", POLICY, "ruth", sample_event, EventType.DIAL_IN)
        )
    assert bench.redis.keys() == []


def test_each_type_has_a_made_up_event() -> None:
    for kind in EventType:
        made = as_trial(sample_event(kind), "acme")
        assert (made.type, made.tenant, made.parameters["test"]) == (kind, "acme", "1")
        assert made.summary is None or made.summary.id == made.call_id
