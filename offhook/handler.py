"""`Handler`: a plugin that gets events. How one is found, given its options, and run once."""

import asyncio
import inspect
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, is_dataclass
from fnmatch import translate
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import msgspec
from pydantic import ConfigDict

from offhook import plugins
from offhook.call import Call
from offhook.errors import ConfigError, TemporaryError
from offhook.event import CALLBACKS, CALLS, CallEvent, EventType
from offhook.extensions import UNKNOWN, ExtensionSettings
from offhook.handler_memory import LocalMemory, Memory
from offhook.http import Answer, Http, check
from offhook.plugins import with_options
from offhook.settings import HandlerSettings
from offhook.tasks import asked_to_end
from offhook.time_limit import Limit, LimitExceeded

GROUP = "offhook.handlers"

FindCall = Callable[[CallEvent], Awaitable[Call]]


class Context(msgspec.Struct, frozen=True, dict=True):
    """What a handler may need besides the event.

    Attributes:
        handler: the name it has in the configuration.
        attempt: 1 at first, one more on every redelivery.
        http: a pooled HTTP client (for `async def` handlers).
        event: the one that is being delivered.
        extension: what `offhook setup` was told of the event's extension: label, owner, ...
        calls: where `call` finds what is not in the event.
        memory: what the handler remembers from one event to another (for `async def` handlers).
    """

    handler: str
    attempt: int
    http: Http
    event: CallEvent
    extension: ExtensionSettings = UNKNOWN
    calls: FindCall | None = None
    memory: Memory = msgspec.field(default_factory=LocalMemory)

    async def call(self, *, latest: bool = False) -> Call:
        """The event's call: as that event tells it, or, of a raw event, as it is known by now.

        Args:
            latest: as it is known by now, whatever the event tells.

        Raises:
            TemporaryError: Redis does not answer.
            LookupError: the event is not about a call.
        """
        if self.event.summary is not None and not latest:
            return self.event.summary
        if self.calls is None or self.event.type not in (*CALLBACKS, *CALLS):
            raise LookupError(f"{self.event.type} is not about a call")
        return await self.calls(self.event)

    @cached_property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that carries the event's keys."""
        keys = {
            "event": self.event.id,
            "call": self.event.call,
            "extension": self.event.extension,
            "handler": self.handler,
            "attempt": self.attempt,
        }
        return logging.LoggerAdapter(logging.getLogger(f"offhook.handler.{self.handler}"), keys)

    def check(self, answer: Answer) -> None:
        """Return when the other side took it, otherwise raise the delivery error it means."""
        check(answer)


class Handler(ABC):
    """The base of handler classes. Its dataclass fields are its options, its docstring the help."""

    events: ClassVar[Sequence[EventType]] = CALLBACKS  # what it gets when nobody says otherwise

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @abstractmethod
    def handle(self, event: CallEvent, context: Context) -> Awaitable[None] | None:
        """Deliver one event. Returning means delivered.

        `async def` runs on the event loop; a plain `def` in a thread. Either may be called again
        with the same `event.id`.

        Raises:
            TemporaryError: try again later.
            PermanentError: never try again.
        """


Function = Callable[..., Awaitable[None] | None]


def _unknown(pbx: str, extension: str) -> ExtensionSettings:
    return UNKNOWN


@dataclass(frozen=True)
class PluggedHandler:
    """A handler as the configuration plugs it in: its name, its policy, and what to call."""

    name: str
    policy: HandlerSettings
    call: Callable[[CallEvent, Context], Awaitable[None] | None]
    is_async: bool
    events: frozenset[EventType] = frozenset(CALLBACKS)

    @cached_property
    def _limit(self) -> Limit:
        return Limit(self.policy.timeout)

    @cached_property
    def _extensions(self) -> re.Pattern[str] | None:
        patterns = [translate(_literal_star(p)) for p in self.policy.extensions or ()]
        return re.compile("|".join(patterns)) if patterns else None

    def wants(
        self, event: CallEvent, of: Callable[[str, str], ExtensionSettings] = _unknown
    ) -> bool:
        """Do the handler's filter, and the settings of an extension, let this event through?

        An event about a whole call comes through when it would for one of its extensions.

        Args:
            of: the settings of an extension, by PBX and number.
        """
        policy = self.policy
        return (
            event.type in self.events
            and (policy.direction is None or event.direction == policy.direction)
            and (policy.pbx is None or event.pbx in policy.pbx)
            and self._wants_one(event, of)
        )

    def _wants_one(self, event: CallEvent, of: Callable[[str, str], ExtensionSettings]) -> bool:
        for number in event.extensions:
            extension = of(event.pbx, number)
            if (extension.handlers is None or self.name in extension.handlers) and (
                self._extensions is None or self._extensions.fullmatch(number)
            ):
                return True
        return False

    async def deliver(
        self,
        event: CallEvent,
        *,
        attempt: int,
        http: Http,
        threads: ThreadPoolExecutor,
        extension: ExtensionSettings = UNKNOWN,
        calls: FindCall | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Hand the event to the handler, once.

        Raises:
            DeliveryError: what the handler raised, or a TemporaryError when it took longer than
                its timeout.
            Exception: a bug in the handler, as it is.
        """
        context = Context(
            self.name, attempt, http, event, extension, calls, memory or LocalMemory()
        )
        try:
            with self._limit:
                if self.is_async:
                    await self.call(event, context)  # type: ignore[misc]
                else:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(threads, _in_thread, self.call, event, context)
        except LimitExceeded as error:
            raise HandlerTimeout(
                f"did not finish within {self.policy.timeout:g} s", hung=not self.is_async
            ) from error
        except asyncio.CancelledError as error:
            if asked_to_end():
                raise
            # Let out it would end who delivers, without a word, and the call would wait for ever.
            raise RuntimeError("the handler was cancelled by something of its own") from error


def _in_thread(
    call: Callable[[CallEvent, Context], Any], event: CallEvent, context: Context
) -> None:
    try:
        call(event, context)
    except StopIteration as error:  # the one exception that asyncio takes from no thread
        raise RuntimeError("the handler raised StopIteration") from error


class HandlerTimeout(TemporaryError):
    """A handler took too long. `hung`: its thread is still running, nothing can stop it."""

    def __init__(self, message: str, *, hung: bool) -> None:
        super().__init__(message)
        self.hung = hung


def installed() -> Mapping[str, EntryPoint]:
    """The handlers that are installed, built-in ones too, by entry-point name."""
    return plugins.installed(GROUP)


def load(use: str) -> type[Handler] | Function:
    """The handler class or function that `use` names.

    Args:
        use: the entry-point name of an installed handler, or `package.module:name`.

    Raises:
        ConfigError: there is none, or it is neither; the message says what there is.
    """
    found = plugins.load(use, GROUP, "handler")
    if inspect.isclass(found):
        if issubclass(found, Handler) and is_dataclass(found) and not inspect.isabstract(found):
            return found
        raise ConfigError(f"{use!r} must be a dataclass that inherits from offhook.Handler")
    if callable(found):
        function: Function = found
        return function
    raise ConfigError(f"{use!r} is neither a handler class nor a function")


def plug(name: str, settings: HandlerSettings) -> PluggedHandler:
    """Find the handler that the settings name and give it its options.

    Raises:
        ConfigError: every fault of its settings, each with its key.
    """
    where = f"handlers.{name}"
    try:
        target = load(settings.use)
    except ConfigError as error:
        raise ConfigError([f"{where}.use: {problem}" for problem in error.problems]) from error
    if isinstance(target, type):
        return plugged(name, settings, with_options(target, settings.options, f"{where}.options"))
    if settings.options:
        raise ConfigError(
            f"{where}.options: a function takes none; use a handler class for options"
        )
    return plugged(name, settings, target)


def plugged(name: str, settings: HandlerSettings, handler: Handler | Function) -> PluggedHandler:
    """A handler that has its options already, or a function, under a name and a policy."""
    if isinstance(handler, Handler):
        events = frozenset(handler.events if settings.events is None else settings.events)
        return PluggedHandler(name, settings, handler.handle, _is_async(handler.handle), events)
    events = frozenset(CALLBACKS if settings.events is None else settings.events)
    return PluggedHandler(name, settings, _with_context(handler), _is_async(handler), events)


def wanted_types(handlers: Mapping[str, HandlerSettings]) -> frozenset[EventType]:
    """The event types that at least one of these handlers gets. Raises ConfigError as `load`."""
    wanted: set[EventType] = set()
    for settings in handlers.values():
        events: Iterable[EventType] | None = settings.events
        if events is None:
            events = getattr(load(settings.use), "events", CALLBACKS)  # a function has none
        wanted.update(events)
    return frozenset(wanted)


def _with_context(function: Function) -> Callable[[CallEvent, Context], Awaitable[None] | None]:
    """A function that takes only the event, as one that takes both."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return function
    return lambda event, context: function(event)


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function)


def _literal_star(pattern: str) -> str:
    """An extension is written with a `*` of its own (0003*210): only a `*` elsewhere is a wildcard.

    `0003*210` and `0003*2??` are meant literally up to the short number, `0003**` and `*` are not.
    """
    organisation, star, rest = pattern.partition("*")
    if star and organisation.isdigit() and rest:
        return f"{organisation}[*]{rest}"
    return pattern
