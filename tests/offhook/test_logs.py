"""Log lines: one per record, with the keys of the event."""

import logging
import time

import pytest

from offhook.logs import Keys, Outage


def line(message: str, **keys: object) -> str:
    record = logging.LogRecord("offhook", logging.INFO, "", 0, message, (), None)
    vars(record).update(keys)
    return Keys("%(levelname)s %(message)s").format(record)


def test_the_keys_of_the_event_are_appended() -> None:
    assert line("redelivered", event="1a", call="main/1", handler="crm", attempt=2) == (
        "INFO redelivered [event=1a call=main/1 handler=crm attempt=2]"
    )


def test_a_line_without_keys_is_the_message() -> None:
    assert line("stopping") == "INFO stopping"


def test_control_characters_are_replaced() -> None:
    told = line("delivery is dead: \x1b[31mno", call="main/1\nERROR forged")
    assert told == "INFO delivery is dead: �[31mno [call=main/1�ERROR forged]"


def test_a_stack_trace_keeps_its_lines() -> None:
    record = logging.LogRecord("offhook", logging.ERROR, "", 0, "failed", (), None)
    record.exc_text = "Traceback:\n  here"
    assert Keys("%(message)s").format(record) == "failed\nTraceback:\n  here"


def test_an_outage_is_logged_at_once_then_rarely_and_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage(logging.getLogger("offhook.test"), "Redis", every=0.2)
    error = ConnectionError("refused")
    outage.is_over()
    for _ in range(100):
        outage.goes_on(error)
    time.sleep(0.25)
    for _ in range(100):
        outage.goes_on(error)
    outage.is_over()
    outage.is_over()
    outage.goes_on(error)
    told = "Redis does not answer (refused); trying again"
    assert caplog.messages == [told, told, "Redis answers again", told]
