"""Configured plugins: what a handler's filter admits, and how a plugin is called once."""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from offhook.errors import HandlerTimeout, TemporaryError
from offhook.event import CALLBACKS, TROUBLE, CallEvent, EventType
from offhook.extensions import UNKNOWN, ExtensionSettings
from offhook.handler import Context, FindCall, Handler
from offhook.handler_memory import LocalMemory, Memory
from offhook.http import Http
from offhook.lookup import Lookup
from offhook.phone_number import Number
from offhook.settings import HandlerSettings, LookupSettings, tenant_of_plugin
from offhook.settings.extension_patterns import compiled
from offhook.tasks import Limit, LimitExceeded, asked_to_end

LONGEST_NAME = 200  # characters

Function = Callable[..., Awaitable[None] | None]  # a handler without options


@dataclass(frozen=True)
class PluggedHandler:
    """A configured handler: its name, its policy, and what to call."""

    name: str
    policy: HandlerSettings
    call: Callable[[CallEvent, Context], Awaitable[None] | None]
    is_async: bool
    events: frozenset[EventType] = frozenset(CALLBACKS)

    @classmethod
    def of(
        cls, name: str, settings: HandlerSettings, handler: Handler | Function
    ) -> "PluggedHandler":
        """Configure a handler that has its options, or a function."""
        call = handler.handle if isinstance(handler, Handler) else handler
        events = (
            getattr(handler, "events", CALLBACKS) if settings.events is None else settings.events
        )
        is_async = inspect.iscoroutinefunction(call)
        return cls(name, settings, _with_context(call), is_async, frozenset(events))

    @cached_property
    def _limit(self) -> Limit:
        return Limit(self.policy.timeout)

    @cached_property
    def _extensions(self) -> re.Pattern[str] | None:
        return compiled(self.policy.extensions or ())

    def wants(
        self, event: CallEvent, of: Callable[[str, str], ExtensionSettings] = lambda *_: UNKNOWN
    ) -> bool:
        """Return whether the handler's filter and the extensions' settings admit this event.

        An event about a whole call needs only one of its extensions to be admitted.

        Args:
            of: the settings of an extension, by PBX and number.
        """
        policy = self.policy
        return (
            event.type in self.events
            and (policy.direction is None or event.direction == policy.direction)
            and (policy.pbx is None or event.pbx in policy.pbx)
            and self._wants_one(event, of)
            and (event.type not in TROUBLE or self._hears_of(event))
        )

    def _hears_of(self, event: CallEvent) -> bool:
        """Return whether to deliver trouble to it: not its own, and the operator has a copy."""
        return event.parameters.get("handler") != self.name and event.tenant == tenant_of_plugin(
            self.name
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
    ) -> str:
        """Make one attempt to deliver the event. Return the start of the response, if known.

        Raises:
            DeliveryError: raised by the handler.
            HandlerTimeout: the handler did not return in time.
            Exception: a bug in the handler.
        """
        context = Context(
            self.name, attempt, http, event, extension, calls, memory or LocalMemory()
        )
        try:
            with self._limit:
                if self.is_async:  # not through `_run`: a coroutine less for each delivery
                    await self.call(event, context)  # type: ignore[misc]
                else:
                    await _run(self.call, self.is_async, threads, event, context)
        except LimitExceeded as error:
            raise HandlerTimeout(
                f"did not finish within {self.policy.timeout:g} s", hung=not self.is_async
            ) from error
        except asyncio.CancelledError as error:
            if asked_to_end():
                raise
            # Passed on, it would end the worker's task without a trace, and the call would wait
            # forever.
            raise RuntimeError("the handler's own code cancelled it") from error
        return context.answered


@dataclass(frozen=True)
class PluggedLookup:
    """A configured lookup: its name, its policy, and the plugin."""

    name: str
    policy: LookupSettings
    lookup: Lookup

    @property
    def lifetime(self) -> float:
        """Seconds for which an answer is cached; 0: never."""
        return self.lookup.remember if self.policy.lifetime is None else self.policy.lifetime

    @cached_property
    def _is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.lookup.name_of)

    async def ask(
        self,
        number: Number,
        event: CallEvent,
        *,
        http: Http,
        threads: ThreadPoolExecutor,
        memory: Memory | None = None,
    ) -> str | None:
        """Ask for the number's name once; the name is on one line.

        Args:
            event: the event that needs the name.

        Raises:
            TemporaryError: the lookup did not answer in time.
            Exception: raised by the lookup.
        """
        context = Context(f"lookups.{self.name}", 1, http, event, memory=memory or LocalMemory())
        try:
            async with asyncio.timeout(self.policy.timeout) as limit:
                answer = await _run(self.lookup.name_of, self._is_async, threads, number, context)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TemporaryError(f"did not answer within {self.policy.timeout:g} s") from error
        if answer is not None and not isinstance(answer, str):
            raise TypeError(f"returned {type(answer).__name__}, which is neither a text nor None")
        return " ".join((answer or "").split())[:LONGEST_NAME] or None


async def _run(
    call: Callable[..., Any], is_async: bool, threads: ThreadPoolExecutor, *arguments: object
) -> Any:
    if is_async:
        return await call(*arguments)
    return await asyncio.get_running_loop().run_in_executor(threads, _in_thread, call, *arguments)


def _in_thread(call: Callable[..., Any], *arguments: object) -> Any:
    try:
        return call(*arguments)
    except StopIteration as error:  # asyncio cannot pass this exception on from a thread
        raise RuntimeError("the plugin raised StopIteration") from error


def _with_context(function: Function) -> Callable[[CallEvent, Context], Awaitable[None] | None]:
    """Let a function that takes only the event be called with the context too."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return function
    return lambda event, context: function(event)
