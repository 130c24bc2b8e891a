"""Run the command line in the process, as typed in a terminal."""

import logging
from collections.abc import Callable, Iterator

import msgspec
import pytest
from typer.testing import CliRunner, Result

from offhook import CallEvent
from offhook.inbox import Inbox, partition_of
from offhook_cli import app
from tests.events import batch_of

Offhook = Callable[..., Result]


async def append(inbox: Inbox, *events: CallEvent) -> None:
    """Append events to the inbox as a receiver does, without waking a worker."""
    for event in events:
        partition = partition_of(event, inbox.partitions)
        batch = msgspec.structs.replace(batch_of(event), partition=partition)
        await inbox.append(batch, duplicate_window=0)


@pytest.fixture
def offhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Offhook]:
    """Run `offhook` with arguments; `input` is what the user types."""
    monkeypatch.setenv("COLUMNS", "120")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str, input: str = "") -> Result:  # noqa: A002 - CliRunner's name
        return CliRunner().invoke(app, arguments, input=input, prog_name="offhook")

    yield run
    # A command that logs has set a handler that writes to its own standard error, now closed.
    root.handlers[:] = handlers
    root.setLevel(level)
