"""`Lookup`: a plugin that knows callers' names. This is its contract; `offhook.plugins` runs it."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import ClassVar

from pydantic import ConfigDict

from offhook.handler import Context
from offhook.phone_number import Number


class Lookup(ABC):
    """Base of lookup classes. The dataclass fields are the options, the docstring is the help.

    A handler class may be a lookup too.
    """

    remember: ClassVar[float] = 300.0  # seconds; unless the configuration sets `lifetime`

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @abstractmethod
    def name_of(self, number: Number, context: Context) -> Awaitable[str | None] | str | None:
        """The name of the number's owner; None if this lookup does not know the number.

        An `async def` runs on the event loop, a plain `def` in a thread. The result is cached by
        number, so it must not depend on anything else.

        Raises:
            Exception: the lookup failed; the event is delivered without the name.
        """

    def problem(self) -> str | None:
        """A sentence on what the lookup needs and lacks, such as a file; None if nothing.

        Shown by `offhook handlers`.
        """
        return None
