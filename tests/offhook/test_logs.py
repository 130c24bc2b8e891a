"""Log lines: one for each record, with the keys of the event, without secrets."""

import json
import logging
import logging.config
import time
from typing import Any

import pytest

from offhook.logs import LineFormatter, Outage, log_config
from offhook_cli.startup import start_logging
from tests.conftest import Configure


def record(message: str, *arguments: object, **keys: object) -> logging.LogRecord:
    made = logging.LogRecord("offhook.deliver", logging.INFO, "", 0, message, arguments, None)
    vars(made).update({"created": 1795289400.25} | keys)
    return made


def line(message: str, *arguments: object, **keys: object) -> str:
    return LineFormatter("text").format(record(message, *arguments, **keys))


def as_json(message: str, *arguments: object, **options: Any) -> dict[str, Any]:
    text = LineFormatter("json", **options).format(record(message, *arguments, call="main/1"))
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


BEGIN = "2026-11-21T19:30:00.250Z INFO offhook.deliver:"


def test_the_keys_of_the_event_are_appended() -> None:
    assert line("redelivered", event="1a", call="main/1", handler="crm", attempt=2, tenant="") == (
        f"{BEGIN} redelivered [call=main/1 event=1a handler=crm attempt=2]"
    )


def test_a_line_without_keys_is_the_message() -> None:
    assert line("stopping %s", 3) == f"{BEGIN} stopping 3"


def test_control_characters_are_replaced() -> None:
    told = line("delivery is dead: \x1b[31mno", call="main/1\nERROR forged")
    assert told == f"{BEGIN} delivery is dead: �[31mno [call=main/1�ERROR forged]"


def test_json_has_the_same_in_one_line() -> None:
    assert as_json("dead: %s", "\x1b[31m\nnein “”") == {
        "time": "2026-11-21T19:30:00.250Z",
        "level": "info",
        "logger": "offhook.deliver",
        "message": "dead: �[31m�nein “”",
        "call": "main/1",
    }


def test_a_stack_trace_keeps_its_lines() -> None:
    try:
        raise ValueError("here \x1b[2J")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (ValueError, error, error.__traceback__)
    text = LineFormatter("text").format(made)
    assert text.startswith(f"{BEGIN} failed\nTraceback (most recent call last):\n")
    assert text.endswith("\nValueError: here �[2J")
    assert json.loads(LineFormatter("json").format(made))["exception"].endswith(": here �[2J")


SECRETS = ("the-secret", "the-secret-of-the-settings", "x")
HOSTILE = (
    "http://user:geheim@crm.example.com/x",
    "GET /callback/main/0003*210/hangup/geheim?CallID=geheim HTTP/1.1",
    "Authorization: Bearer geheim",
    "the target says: the-secret is not the-secret-of-the-settings",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_secret_is_logged(text: str) -> None:
    told = as_json("delivery is dead: %s", text, secrets=SECRETS)["message"]
    for secret in ("geheim", "the-secret", "-of-the-settings"):
        assert secret not in told
    assert "***" in told


def test_the_rest_of_an_address_stays() -> None:
    told = as_json("Redis at redis://user:geheim@127.0.0.1:6379/0 does not answer")
    assert told["message"] == "Redis at redis://***@127.0.0.1:6379/0 does not answer"


def test_numbers_are_masked_if_asked() -> None:
    said = "call +40 (21) 123-45-67 or 0211234567, dial 210 of 0003*210, 429 in 12 s"
    assert as_json(said)["message"] == said
    assert as_json(said, mask_numbers=True)["message"] == (
        "call ***67 or ***67, dial 210 of 0003*210, 429 in 12 s"
    )


@pytest.fixture
def logging_restored() -> Any:
    root, ours = logging.getLogger(), logging.getLogger("offhook")
    before = root.handlers[:], root.level, ours.level
    for name in ("offhook.deliver", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)  # which servers of other tests have configured
        logger.handlers[:], logger.propagate, logger.disabled = [], True, False
        logger.setLevel(logging.NOTSET)
    yield
    root.handlers[:], root.level, ours.level = before


def test_all_loggers_write_alike_as_the_settings_say(
    configure: Configure, logging_restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(
        "log_level = 'debug'\nlog_mask_numbers = true\n"
        "[pbx.main]\nhost = 'https://pbx'\ntoken = 'token-of-the-pbx'\n"
    )
    config = start_logging()
    assert config["formatters"]["line"]["form"] == "auto"
    for name in ("offhook.deliver", "uvicorn.error", "rq.worker", "apprise"):
        logging.getLogger(name).error("token-of-the-pbx of 0211234567")
    logging.getLogger("offhook.deliver").debug("delivered")
    logging.getLogger("uvicorn.access").info("quiet")
    told = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [each["logger"] for each in told] == [
        *("offhook.deliver", "uvicorn.error", "rq.worker", "apprise"),
        "offhook.deliver",
    ]
    assert {each["message"] for each in told} == {"*** of ***67", "delivered"}


def test_a_wrong_configuration_is_logged_with_the_defaults(
    configure: Configure, logging_restored: None
) -> None:
    configure("nonsense = 1\n")
    assert start_logging() == log_config()


def test_an_outage_is_logged_at_once_then_rarely_and_at_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now)
    outage = Outage(logging.getLogger("offhook.test"), "Redis", every=60)
    error = ConnectionError("refused")
    outage.is_over()
    for _ in range(100):
        outage.goes_on(error)
    now += 61
    for _ in range(100):
        outage.goes_on(error)
    outage.is_over()
    outage.is_over()
    outage.goes_on(error)
    told = "Redis does not answer (refused); trying again"
    assert caplog.messages == [told, told, "Redis answers again", told]
