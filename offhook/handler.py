"""`Handler`: a plugin that gets events. This is its contract; `offhook.plugins` runs it."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import ClassVar

import msgspec
from pydantic import ConfigDict

from offhook.call import Call
from offhook.event import CALLBACKS, CALLS, CallEvent, EventType
from offhook.extensions import UNKNOWN, ExtensionSettings
from offhook.handler_memory import LocalMemory, Memory
from offhook.http import Answer, Http, check
from offhook.http.client import quoted

FindCall = Callable[[CallEvent], Awaitable[Call]]


class Context(msgspec.Struct, frozen=True, dict=True):
    """What a handler may need besides the event.

    Attributes:
        handler: its name in the configuration.
        attempt: 1 for the first attempt, one more for each redelivery.
        http: a pooled HTTP client (for `async def` handlers).
        event: the event being delivered.
        extension: the settings of the event's extension from `offhook setup`: label, owner, ...
        calls: finds the call of a raw event, for `call`.
        memory: values that the handler keeps between events (for `async def` handlers).
    """

    handler: str
    attempt: int
    http: Http
    event: CallEvent
    extension: ExtensionSettings = UNKNOWN
    calls: FindCall | None = None
    memory: Memory = msgspec.field(default_factory=LocalMemory)

    async def call(self, *, latest: bool = False) -> Call:
        """The event's call: as of that event, or for a raw event, as known now.

        Args:
            latest: as known now, for any event.

        Raises:
            TemporaryError: Redis does not respond.
            LookupError: the event is not about a call.
        """
        if self.event.summary is not None and not latest:
            return self.event.summary
        if self.calls is None or self.event.type not in (*CALLBACKS, *CALLS):
            raise LookupError(f"{self.event.type} is not about a call")
        return await self.calls(self.event)

    @cached_property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that adds the event's keys to each line."""
        keys = {
            "tenant": self.event.tenant,
            "event": self.event.id,
            "call": self.event.call,
            "extension": self.event.extension,
            "handler": self.handler,
            "attempt": self.attempt,
        }
        return logging.LoggerAdapter(logging.getLogger(f"offhook.handler.{self.handler}"), keys)

    def check(self, answer: Answer) -> None:
        """Return if the status is 2xx; otherwise raise as `offhook.http.check` does.

        The record of deliveries quotes the start of the response.
        """
        check(answer)
        self.__dict__["_answer"] = answer  # as `cached_property` does

    @property
    def answered(self) -> str:
        """The status and the start of the last response that was checked, if any."""
        answer = self.__dict__.get("_answer")
        return quoted(answer) if answer else ""


class Handler(ABC):
    """Base of handler classes. The dataclass fields are the options, the docstring is the help."""

    events: ClassVar[Sequence[EventType]] = CALLBACKS  # unless the configuration sets `events`

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @abstractmethod
    def handle(self, event: CallEvent, context: Context) -> Awaitable[None] | None:
        """Deliver one event. Returning means delivered.

        An `async def` runs on the event loop, a plain `def` in a thread. The same `event.id` may
        come more than once.

        Raises:
            TemporaryError: try again later.
            PermanentError: never try again.
        """
