"""What plugin authors try their handlers with."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from typing import Annotated

import pytest
from pydantic import AfterValidator, Field, SecretStr

from offhook import CallEvent, Context, EventType, Handler, PermanentError, TemporaryError
from offhook.call import Outcome
from offhook.errors import ConfigError
from offhook.event import GROUPS, read_event
from offhook.testing import configured, context, deliver, sample_event, sample_events


def test_there_is_a_sample_of_every_event_type() -> None:
    there = {event.type for group in GROUPS for event in sample_events(group)}
    assert there == set(EventType) - {EventType.CALL_RECORD}  # Offhook tells itself of records


def test_a_sample_of_a_whole_call_has_its_summary_and_comes_back_from_json() -> None:
    for event in sample_events("calls"):
        assert event.summary is not None
        assert (event.direction, event.call_id) == ("in", event.summary.id)
        assert CallEvent.from_dict(json.loads(json.dumps(event.as_dict()))) == event
    summary = sample_event("missed-call").summary
    assert summary is not None
    assert (summary.outcome, summary.talk_seconds) == (Outcome.MISSED, 0)


def test_a_sample_is_what_a_callback_with_its_parameters_says() -> None:
    for event in sample_events():
        read = read_event(
            pbx=event.pbx,
            extension=event.extension,
            type=event.type,
            parameters=event.parameters,
            received=event.received,
        )
        assert read is not None
        assert read.as_dict() | {"id": event.id} == event.as_dict()


def test_every_sample_has_an_id_of_its_own() -> None:
    assert sample_event().id != sample_event().id


def test_fields_of_a_sample_can_differ() -> None:
    event = sample_event("hangup", status="BUSY", id="1")
    assert (event.type, event.status, event.id) == (EventType.HANGUP, "BUSY", "1")


def test_a_wrong_type_or_field_is_refused() -> None:
    with pytest.raises(ValueError, match="ring"):
        sample_event("ring")
    with pytest.raises(TypeError, match="colour"):
        sample_event(colour="red")


@dataclass(frozen=True)
class Keeper(Handler):
    """Keep what came."""

    seen: list[tuple[str, int, bool]]

    async def handle(self, event: CallEvent, context: Context) -> None:
        main = threading.current_thread() is threading.main_thread()
        self.seen.append((event.id, context.attempt, main))


def test_a_handler_is_run_on_the_event_loop() -> None:
    keeper, event = Keeper([]), sample_event()
    deliver(keeper, event, attempt=3)
    assert keeper.seen == [(event.id, 3, True)]


def test_a_plain_function_is_run_in_a_thread() -> None:
    threads = []
    deliver(lambda event: threads.append(threading.current_thread()), sample_event())
    assert threads[0] is not threading.main_thread()


def test_a_function_may_take_the_context() -> None:
    seen = []

    async def function(event: CallEvent, context: Context) -> None:
        seen.append((event.type, context.attempt))

    deliver(function, sample_event("answer-out"), 2)
    assert seen == [(EventType.ANSWER_OUT, 2)]


def test_what_a_handler_raises_comes_through() -> None:
    def refuse(event: CallEvent) -> None:
        raise PermanentError("never")

    def stumble(event: CallEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(PermanentError, match="never"):
        deliver(refuse, sample_event())
    with pytest.raises(ZeroDivisionError):
        deliver(stumble, sample_event())


def test_a_handler_that_takes_too_long_is_a_temporary_error() -> None:
    async def sleep(event: CallEvent) -> None:
        await asyncio.sleep(10)

    with pytest.raises(TemporaryError, match=r"0\.05 s"):
        deliver(sleep, sample_event(), timeout=0.05)


def test_a_thread_that_hangs_is_not_waited_for() -> None:
    begun = time.monotonic()
    with pytest.raises(TemporaryError, match=r"0\.05 s"):
        deliver(lambda event: time.sleep(1), sample_event(), timeout=0.05)
    assert time.monotonic() - begun < 0.9


@dataclass(frozen=True)
class Optional(Handler):
    """A handler with options."""

    token: SecretStr
    size: Annotated[int, Field(gt=0)] = 1

    def handle(self, event: CallEvent, context: Context) -> None:
        """Nothing."""


def test_options_are_read_as_from_the_configuration() -> None:
    handler = configured(Optional, token="hush", size="3")
    assert (handler.token.get_secret_value(), handler.size) == ("hush", 3)


def test_wrong_options_are_named_all_at_once() -> None:
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
    """A handler with a check of its own."""

    size: Annotated[int, AfterValidator(_even)]

    def handle(self, event: CallEvent, context: Context) -> None:
        """Nothing."""


def test_an_authors_own_sentence_is_shown_as_it_is() -> None:
    with pytest.raises(ConfigError) as raised:
        configured(Paired, size=3)
    assert raised.value.problems == ["options.size: must be even; take the next one"]


def test_a_context_says_the_attempt() -> None:
    assert context(attempt=4).attempt == 4
