"""`Lookup`: a plugin that knows whose number it is. How one is found, given options, asked once."""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import ClassVar

from pydantic import ConfigDict

from offhook import plugins
from offhook.errors import ConfigError, TemporaryError
from offhook.event import CallEvent
from offhook.handler import Context
from offhook.handler_memory import LocalMemory, Memory
from offhook.http import Http
from offhook.phone_number import Number
from offhook.settings import LookupSettings

GROUP = "offhook.lookups"
LONGEST = 200  # characters of a name


class Lookup(ABC):
    """The base of lookup classes. Its dataclass fields are its options, its docstring the help.

    A handler may be a lookup, too.
    """

    remember: ClassVar[float] = 300.0  # seconds an answer is good when nobody says otherwise

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @abstractmethod
    def name_of(self, number: Number, context: Context) -> Awaitable[str | None] | str | None:
        """Whose number it is, as people call them; None: it is nobody's that is known here.

        `async def` runs on the event loop; a plain `def` in a thread. The answer is remembered for
        the number, so let it depend on nothing else.

        Raises:
            Exception: nobody can say now; the event goes on without.
        """

    def problem(self) -> str | None:
        """What is wrong with what it needs, such as a file, in a sentence; None: nothing.

        `offhook handlers` asks this.
        """
        return None


@dataclass(frozen=True)
class PluggedLookup:
    """A lookup as the configuration plugs it in: its name, its policy, and whom to ask."""

    name: str
    policy: LookupSettings
    lookup: Lookup

    @property
    def lifetime(self) -> float:
        """The seconds that an answer is good; 0: it is asked each time."""
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
        """Ask it once: the name, on one line, or None.

        Args:
            event: because of which it is asked.

        Raises:
            TemporaryError: it took longer than its timeout.
            Exception: what it raised.
        """
        context = Context(f"lookups.{self.name}", 1, http, event, memory=memory or LocalMemory())
        try:
            async with asyncio.timeout(self.policy.timeout) as limit:
                answer = await self._answer(number, context, threads)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TemporaryError(f"did not answer within {self.policy.timeout:g} s") from error
        if answer is not None and not isinstance(answer, str):
            raise TypeError(f"gave {type(answer).__name__}, which is neither a text nor None")
        return " ".join((answer or "").split())[:LONGEST] or None

    async def _answer(
        self, number: Number, context: Context, threads: ThreadPoolExecutor
    ) -> object:
        if self._is_async:
            return await self.lookup.name_of(number, context)  # type: ignore[misc]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, self.lookup.name_of, number, context)


def installed() -> Mapping[str, EntryPoint]:
    """The lookups that are installed, built-in ones too, by entry-point name."""
    return plugins.installed(GROUP)


def load(use: str) -> type[Lookup]:
    """The lookup class that `use` names.

    Args:
        use: the entry-point name of an installed lookup, or `package.module:name`.

    Raises:
        ConfigError: there is none; the message says what there is.
    """
    found = plugins.load(use, GROUP, "lookup")
    if inspect.isclass(found) and issubclass(found, Lookup) and not inspect.isabstract(found):
        lookup: type[Lookup] = found
        if is_dataclass(lookup):
            return lookup
    raise ConfigError(f"{use!r} must be a dataclass that inherits from offhook.Lookup")


def plug(name: str, settings: LookupSettings) -> PluggedLookup:
    """Find the lookup that the settings name and give it its options.

    Raises:
        ConfigError: every fault of its settings, each with its key.
    """
    where = f"lookups.{name}"
    try:
        target = load(settings.use)
    except ConfigError as error:
        raise ConfigError([f"{where}.use: {problem}" for problem in error.problems]) from error
    options = plugins.with_options(target, settings.options, f"{where}.options")
    return PluggedLookup(name, settings, options)
