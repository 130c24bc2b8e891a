"""Log lines: one for each record, with the keys of the event."""

import logging

from offhook.logs import Keys


def line(message: str, **keys: object) -> str:
    record = logging.LogRecord("offhook", logging.INFO, "", 0, message, (), None)
    vars(record).update(keys)
    return Keys("%(levelname)s %(message)s").format(record)


def test_the_keys_of_the_event_are_appended() -> None:
    assert line("redelivered", event="1a", call="main/1", handler="crm", attempt=2) == (
        "INFO redelivered [event=1a call=main/1 handler=crm attempt=2]"
    )


def test_without_keys_it_is_the_message() -> None:
    assert line("stopping") == "INFO stopping"


def test_nothing_from_outside_begins_a_line_or_paints_the_terminal() -> None:
    told = line("delivery is dead: \x1b[31mno", call="main/1\nERROR forged")
    assert told == "INFO delivery is dead: �[31mno [call=main/1�ERROR forged]"


def test_a_traceback_keeps_its_lines() -> None:
    record = logging.LogRecord("offhook", logging.ERROR, "", 0, "failed", (), None)
    record.exc_text = "Traceback:\n  here"
    assert Keys("%(message)s").format(record) == "failed\nTraceback:\n  here"
