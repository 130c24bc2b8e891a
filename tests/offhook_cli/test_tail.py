"""`offhook tail`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from offhook.connection import opened
from offhook.inbox import Inbox, feed
from offhook.settings import load_settings
from offhook.tasks import end
from offhook.testing import sample_event
from offhook_cli.tail import _tail
from tests.conftest import Configure
from tests.offhook_cli.conftest import Offhook, append

HANDLERS = '[handlers.crm]\nuse = "console"\n[handlers.chat]\nuse = "console"\n'


def attempt(handler: str, outcome: str = "delivered", **values: object) -> dict[str, Any]:
    event = sample_event("dial-in")
    return {
        "handler": handler,
        "event": event.id,
        "call": event.call,
        "type": event.type,
        "extension": event.extension,
        "attempt": 1,
        "outcome": outcome,
        "error": None,
        "waited": 0.0015,
        "took": 0.25,
    } | values


@asynccontextmanager
async def tailing(
    capsys: pytest.CaptureFixture[str], expected: int, **filters: Any
) -> AsyncIterator[tuple[Inbox, list[str]]]:
    """Run `offhook tail`; at the end, the list has the lines that it printed.

    Args:
        expected: how many of them name an extension.
    """
    settings = load_settings()
    names = ("handlers", "extensions", "calls")
    given = [filters.get(name) for name in names]
    lines: list[str] = []
    async with opened(settings) as (inbox, _):
        task = asyncio.create_task(_tail(settings, *given, as_json=filters.get("as_json", False)))
        while not await feed.is_watched(inbox.redis):
            await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            while not any(each["cmd"] == "xread" for each in await inbox.redis.client_list()):
                await asyncio.sleep(0.01)  # until the events are read, too
        yield inbox, lines
        async with asyncio.timeout(30):
            while sum("0003*" in line for line in lines) < expected:
                await asyncio.sleep(0.01)
                lines += capsys.readouterr().out.splitlines()
        await asyncio.sleep(0.1)  # for more than is expected
        await end(task)
    lines += capsys.readouterr().out.splitlines()


async def happen(inbox: Inbox) -> None:
    """Accept two events, and try four deliveries."""
    await append(inbox, sample_event("dial-in"))
    await append(inbox, sample_event("dial-in", extension="0003*999", call_id="another"))
    await feed.publish(
        inbox.redis,
        [
            attempt("crm"),
            attempt("chat", "failed", error="answered 503"),
            attempt("chat", "dead", error="bad\x1b[2Jscreen"),
            attempt("crm", extension="0003*999", call="main/another"),
        ],
    )


async def test_events_and_deliveries_are_shown(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(HANDLERS)
    async with tailing(capsys, 6) as (inbox, lines):
        await happen(inbox)
    shown = [line.split() for line in lines if "0003*" in line]
    assert sorted(words[0] for words in shown) == ["↻", "●", "●", "✓", "✓", "✗"]
    text = "\n".join(lines)
    assert "✓ crm       dial-in       0003*210  after 1.5 ms, took 250 ms" in text
    assert (
        "↻ chat      dial-in       0003*210  answered 503; later events of this call wait" in text
    )
    assert "screen; a dead letter: see `offhook dead list`" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("filters", "kinds"),
    [
        ({}, ["delivery"] * 4 + ["event"] * 2),
        ({"handlers": ["chat"]}, ["delivery"] * 2),
        ({"extensions": ["0003*999"]}, ["delivery", "event"]),
        ({"calls": ["another"]}, ["delivery", "event"]),
        ({"calls": ["main/another"], "handlers": ["crm"]}, ["delivery"]),
        ({"handlers": ["crm"], "extensions": ["0003*000"]}, []),
    ],
)
async def test_filters_narrow_what_is_shown(
    filters: dict[str, list[str]],
    kinds: list[str],
    configure: Configure,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(HANDLERS)
    async with tailing(capsys, len(kinds), as_json=True, **filters) as (inbox, lines):
        await happen(inbox)
    objects = list(map(json.loads, lines))
    assert sorted(kind for each in objects for kind in each) == kinds


def test_an_unknown_handler_is_an_error(configure: Configure, offhook: Offhook) -> None:
    configure(HANDLERS)
    result = offhook("tail", "--handler", "chatt")
    assert result.exit_code == 2
    assert result.stderr == (
        "no handler is configured as 'chatt'; configured: crm, chat; did you mean 'chat'?\n"
    )


def test_an_unreachable_server_is_one_sentence(configure: Configure, offhook: Offhook) -> None:
    configure(HANDLERS, redis_url="redis://127.0.0.1:1/0")
    result = offhook("tail")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Redis at redis://127.0.0.1:1/0 does not answer: start it, or set redis_url\n"
    )
