"""`Bus`: one connection to a broker. Opened with the first message, and reused."""

import asyncio
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from faststream.security import BaseSecurity

from offhook import PermanentError, TemporaryError

_CLOSE_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True)
class Address:
    """A broker's URL. `hosts`: each as `host:port`."""

    scheme: str
    hosts: tuple[str, ...]
    path: str
    security: BaseSecurity | None


@dataclass(frozen=True)
class Message:
    """An event, ready to be published."""

    topic: str
    key: str
    id: str
    content_type: str
    body: bytes
    headers: dict[str, str]


class Bus(ABC):
    """A connection to a broker.

    Attributes:
        title: the broker's name for people.
        ports: the default port, and the one for TLS.
        many_hosts: whether the URL may name several hosts.
        through: what the broker calls the thing that messages go through, if it has one.
        topics: the topics that it accepts.
    """

    title: ClassVar[str]
    ports: ClassVar[tuple[int, int]]
    many_hosts: ClassVar[bool] = False
    through: ClassVar[str | None] = None
    topics: ClassVar[re.Pattern[str]]

    def __init__(self, address: Address, through: str, timeout: float) -> None:
        self._where = ",".join(address.hosts)  # for error messages, so without credentials
        self._through = through
        self._timeout = timeout
        self._broker = self._make(address)
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._connection: asyncio.Task[None] | None = None

    @abstractmethod
    def _make(self, address: Address) -> Any:
        """Make FastStream's broker, not yet connected."""

    @abstractmethod
    async def _publish(self, message: Message) -> None:
        """Return when the broker has acknowledged the message. Raises what its client raises."""

    @abstractmethod
    def _refusal(self, error: Exception, topic: str) -> Exception | None:
        """The delivery error for a refusal by the broker; None: it did not refuse."""

    async def publish(self, message: Message) -> None:
        """Connect if necessary, and return when the broker has acknowledged the message.

        Raises:
            TemporaryError: it did not answer, or refuses until an operator corrects something.
            PermanentError: it will never accept this message.
        """
        try:
            async with asyncio.timeout(self._timeout):
                async with self._connecting:
                    if self._connection is None:
                        await self._connect()
                await self._publish(message)
        except Exception as error:
            if refusal := self._refusal(error, message.topic):
                raise refusal from error
            if isinstance(error, TimeoutError):
                raise TemporaryError(
                    f"{self._where} did not acknowledge within {self._timeout:g} s"
                ) from error
            raise TemporaryError(
                f"no acknowledgement from {self._where} ({type(error).__name__})"
            ) from error

    @property
    def lasts(self) -> bool:
        """Whether the connection survives a failure. Most brokers close it after a refusal."""
        return False

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.cancel()
            await asyncio.wait([self._connection])

    async def _connect(self) -> None:
        try:
            self._client = await self._broker.connect()
        except BaseException:
            await self._stop()
            raise
        self._connection = asyncio.create_task(self._keep())
        await asyncio.sleep(0)  # a task cancelled before its first step would never call _stop

    async def _keep(self) -> None:
        # A task, because an event loop that closes cancels its tasks and waits for them.
        try:
            await asyncio.Event().wait()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        with suppress(Exception):  # the connection is given up in any case
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._end()

    async def _end(self) -> None:
        await self._broker.stop()

    def _bad_credentials(self) -> TemporaryError:
        return TemporaryError(f"{self._where} refuses the credentials: correct those in the url")

    def _no_right(self, topic: str) -> TemporaryError:
        return TemporaryError(
            f"{self._where} does not allow publishing to {topic!r}: grant it to the url's user"
        )

    def _too_large(self, topic: str) -> PermanentError:
        return PermanentError(
            f"the event is larger than {self._where} accepts in {topic!r}: raise its limit"
        )
