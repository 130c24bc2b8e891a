"""`offhook.testing`, for plugin authors."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
from pydantic import AfterValidator, Field, SecretStr

from offhook import CallEvent, Context, EventType, Handler, PermanentError, TemporaryError
from offhook.call import Outcome
from offhook.dialects.voipnow import read_event
from offhook.errors import ConfigError
from offhook.event import GROUPS
from offhook.testing import configured, context, deliver, deliver_call, sample_event, sample_events


def test_there_is_a_sample_of_every_event_type() -> None:
    there = {event.type for group in GROUPS for event in sample_events(group)}
    assert there == set(EventType) - {EventType.CALL_RECORD}  # internal


def test_a_sample_about_a_whole_call_has_a_summary() -> None:
    for event in sample_events("calls"):
        assert event.summary is not None
        assert (event.direction, event.call_id) == ("in", event.summary.id)
        assert CallEvent.from_dict(json.loads(json.dumps(event.as_dict()))) == event
    summary = sample_event("missed-call").summary
    assert summary is not None
    assert (summary.outcome, summary.talk_seconds) == (Outcome.MISSED, 0)


def test_a_sample_of_an_answered_call_has_not_ended() -> None:
    event = sample_event("call-answered")
    call = event.summary
    assert call is not None
    assert (call.answered_by, call.answered) == ("0003*210", event.received)
    assert (call.ended, call.outcome, call.talk_seconds) == (None, None, 0)
    [leg] = call.legs
    assert (leg.answered, leg.ended, leg.status) == (call.answered, None, None)


def test_a_sample_matches_its_parameters() -> None:
    for event in sample_events():
        read = read_event(
            pbx=event.pbx,
            extension=event.extension,
            type=event.type,
            parameters=event.parameters,
            received=event.received,
        )
        assert read.as_dict() | {"id": event.id} == event.as_dict()


def test_every_sample_has_a_new_id() -> None:
    assert sample_event().id != sample_event().id


def test_fields_of_a_sample_can_be_changed() -> None:
    event = sample_event("hangup", status="BUSY", id="1")
    assert (event.type, event.status, event.id) == (EventType.HANGUP, "BUSY", "1")


def test_a_wrong_type_or_field_is_refused() -> None:
    with pytest.raises(ValueError, match="ring"):
        sample_event("ring")
    with pytest.raises(TypeError, match="colour"):
        sample_event(colour="red")


@dataclass(frozen=True)
class Keeper(Handler):
    """Keep the deliveries."""

    seen: list[tuple[str, int, bool]]

    async def handle(self, event: CallEvent, context: Context) -> None:
        main = threading.current_thread() is threading.main_thread()
        self.seen.append((event.id, context.attempt, main))


def test_an_async_handler_runs_on_the_event_loop() -> None:
    keeper, event = Keeper([]), sample_event()
    deliver(keeper, event, attempt=3)
    assert keeper.seen == [(event.id, 3, True)]


def test_a_plain_function_runs_in_a_thread() -> None:
    threads = []
    deliver(lambda event: threads.append(threading.current_thread()), sample_event())
    assert threads[0] is not threading.main_thread()


def test_a_function_may_take_the_context() -> None:
    seen = []

    async def function(event: CallEvent, context: Context) -> None:
        seen.append((event.type, context.attempt))

    deliver(function, sample_event("answer-out"), 2)
    assert seen == [(EventType.ANSWER_OUT, 2)]


def test_a_handlers_error_is_raised() -> None:
    def refuse(event: CallEvent) -> None:
        raise PermanentError("never")

    def stumble(event: CallEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(PermanentError, match="never"):
        deliver(refuse, sample_event())
    with pytest.raises(ZeroDivisionError):
        deliver(stumble, sample_event())


def test_errors_that_asyncio_would_hide_are_raised() -> None:
    async def cancelled(event: CallEvent) -> None:
        helper = asyncio.create_task(asyncio.sleep(10))
        helper.cancel()
        await helper

    def empty(event: CallEvent) -> None:
        next(iter(()))

    with pytest.raises(RuntimeError, match="the handler's own code cancelled it"):
        deliver(cancelled, sample_event(), timeout=2)
    with pytest.raises(RuntimeError, match="StopIteration"):
        deliver(empty, sample_event(), timeout=2)


def test_a_handler_timeout_is_a_temporary_error() -> None:
    async def sleep(event: CallEvent) -> None:
        await asyncio.sleep(10)

    with pytest.raises(TemporaryError, match=r"0\.05 s"):
        deliver(sleep, sample_event(), timeout=0.05)


def test_deliver_does_not_wait_for_a_thread_that_hangs() -> None:
    begun, go_on = time.monotonic(), threading.Event()

    def hang(event: CallEvent) -> None:
        go_on.wait(60)

    with pytest.raises(TemporaryError, match=r"0\.05 s"):
        deliver(hang, sample_event(), timeout=0.05)
    assert time.monotonic() - begun < 30
    go_on.set()


@dataclass(frozen=True)
class Optional(Handler):
    """A handler with options."""

    token: SecretStr
    size: Annotated[int, Field(gt=0)] = 1

    def handle(self, event: CallEvent, context: Context) -> None:
        """Nothing."""


def test_options_are_converted_as_in_the_configuration() -> None:
    handler = configured(Optional, token="hush", size="3")
    assert (handler.token.get_secret_value(), handler.size) == ("hush", 3)


def test_all_wrong_options_are_reported() -> None:
    with pytest.raises(ConfigError) as raised:
        configured(Optional, size=0, colour="red")
    assert "options.token: " in str(raised.value)
    assert "options.size: " in str(raised.value)
    assert "options.colour: there is no such option" in raised.value.problems


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even; take the next one")
    return value


@dataclass(frozen=True)
class Paired(Handler):
    """A handler that checks an option."""

    size: Annotated[int, AfterValidator(_even)]

    def handle(self, event: CallEvent, context: Context) -> None:
        """Nothing."""


def test_a_plugins_own_message_is_reported_unchanged() -> None:
    with pytest.raises(ConfigError) as raised:
        configured(Paired, size=3)
    assert raised.value.problems == ["options.size: must be even; take the next one"]


ANSWERED = ["dial-in", "call-started", "answer-in", "call-answered", "hangup", "call-ended"]
MISSED = ["dial-in", "call-started", "hangup", "call-ended", "missed-call"]


@pytest.mark.parametrize("outcome", Outcome)
def test_every_event_of_a_call_is_delivered_twice_in_order(outcome: Outcome) -> None:
    seen = []

    def keep(event: CallEvent, context: Context) -> None:
        seen.append((event, context.attempt))

    told = deliver_call(keep, outcome, events=["raw", "calls"])
    assert [event.type for event in told] == (ANSWERED if outcome == "answered" else MISSED)
    assert seen == [(event, attempt) for event in told for attempt in (1, 2)]
    assert [event.received for event in told] == sorted(event.received for event in told)
    assert len({event.id for event in told}) == len(told)
    [hangup] = (event for event in told if event.type == "hangup")
    last = told[-1].summary
    assert last is not None
    assert last.outcome == outcome
    assert hangup.status == hangup.parameters["CallStatus"] == last.legs[0].status


def test_a_handler_gets_the_events_of_its_choice() -> None:
    @dataclass(frozen=True)
    class Ended(Handler):
        events: ClassVar = (EventType.CALL_ENDED,)

        def handle(self, event: CallEvent, context: Context) -> None:
            """Nothing."""

    assert [event.type for event in deliver_call(Ended())] == ["call-ended"]
    assert [event.type for event in deliver_call(lambda event: None)] == [
        "dial-in",
        "answer-in",
        "hangup",
    ]


def test_the_call_grows_with_each_event() -> None:
    known = []

    async def look(event: CallEvent, context: Context) -> None:
        call = await context.call()
        known.append((event.type, call.answered_by, call.outcome))

    deliver_call(look)
    assert known[::2] == [
        ("dial-in", None, None),
        ("answer-in", "0003*210", None),
        ("hangup", "0003*210", "answered"),
    ]


def test_the_events_of_a_call_share_a_memory() -> None:
    counts = []

    async def count(event: CallEvent, context: Context) -> None:
        number = int(await context.memory.get("seen") or 0) + 1
        await context.memory.set("seen", str(number), 60)
        counts.append(number)

    deliver_call(count)
    assert counts == [1, 2, 3, 4, 5, 6]


def test_a_handler_without_events_of_a_call_is_refused() -> None:
    with pytest.raises(ValueError, match="no event of a call"):
        deliver_call(lambda event: None, events=["extensions"])
    with pytest.raises(ValueError, match="ring"):
        deliver_call(lambda event: None, events=["ring"])


def test_deliver_call_stops_at_the_first_error() -> None:
    def refuse(event: CallEvent) -> None:
        raise PermanentError("never")

    with pytest.raises(PermanentError, match="never"):
        deliver_call(refuse)


def test_a_context_has_the_attempt() -> None:
    assert context(attempt=4).attempt == 4
