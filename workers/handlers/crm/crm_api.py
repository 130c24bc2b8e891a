"""`CrmApi`: requests to a CRM. It signs in, renews its access, and reads what a refusal means."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from offhook import Context, PermanentError, TemporaryError
from offhook.http import Answer
from offhook.ttl_cache import TtlCache

DAY = 86400.0
_RENEW_EARLY = 60.0  # seconds before a token expires


@dataclass(frozen=True)
class Access:
    """The address of the CRM, and the headers that authorize requests.

    Attributes:
        url: the prefix of every path.
        headers: sent with every request.
        seconds: until it expires; None: never.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    seconds: float | None = None


def json_object(answer: Answer) -> dict[str, Any]:
    """The JSON object in a response; empty when its body is anything else."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


class CrmApi(ABC):
    """The API of a CRM.

    Attributes:
        name: of the CRM, as its users write it.
        timeout: seconds to wait for each response.
    """

    name: ClassVar[str]
    timeout: float

    # To be written for each CRM

    @abstractmethod
    async def sign_in(self, context: Context) -> Access:
        """Return access to the CRM, from the options or with a new token."""

    def said(self, answer: Answer) -> str:
        """Return the CRM's own explanation of a refusal."""
        return ""

    def expired(self, answer: Answer) -> bool:
        """Return whether the access has expired, so that a new token may help."""
        return answer.status == 401

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        """Return the error that a response means; None for success.

        Wrong credentials, rights and addresses can be corrected while events wait: these errors
        are temporary, and open the circuit. A record that the CRM refuses stays refused.
        """
        said = self.said(answer)
        because = f": {said}" if said else ""
        if answer.status in (401, 403):
            return TemporaryError(
                f"{self.name} denies access ({answer.status}{because}): correct the credentials "
                "in the handler's options, or their permissions in the CRM"
            )
        if 300 <= answer.status < 400:
            return TemporaryError(f"{self.name} redirects ({answer.status}): correct its address")
        try:
            context.check(answer)
        except TemporaryError as error:
            return TemporaryError(f"{self.name} {error}{because}", error.retry_after)
        except PermanentError as error:
            return PermanentError(f"{self.name} {error}{because}")
        return None

    # For the subclasses to call

    async def ask(
        self, context: Context, method: str, path: str, *, json: Any = None, **rest: Any
    ) -> Answer:
        """Send a request and return any response. An expired token is renewed once.

        Args:
            path: appended to the CRM's address.
            json: a body to send as JSON.
            rest: `params`, `data`, `headers`, as for `context.http.request`.

        Raises:
            TemporaryError: no response, or no access.
        """
        access = await self._access(context)
        answer = await self._request(access, context, method, path, json=json, **rest)
        if access.seconds is not None and self.expired(answer):
            access = await self._access(context, refused=access)
            answer = await self._request(access, context, method, path, json=json, **rest)
        return answer

    async def request(
        self, context: Context, method: str, path: str, *, json: Any = None, **rest: Any
    ) -> Any:
        """Send a request as `ask` does, and return the response's JSON; None: it has no body.

        Raises:
            TemporaryError, PermanentError: the fault that the response means.
        """
        return self.read(await self.ask(context, method, path, json=json, **rest), context)

    async def get(self, context: Context, path: str, **params: str) -> Any:
        """Send a GET request with these query parameters, as `request` does."""
        return await self.request(context, "GET", path, params=params or None)

    def read(self, answer: Answer, context: Context) -> Any:
        """Return the JSON of a response, or raise the fault that it means."""
        fault = self.fault(answer, context)
        if fault is not None:
            raise fault
        try:
            return answer.json() if answer.body.strip() else None
        except ValueError as error:
            raise TemporaryError(
                f"{self.name} answered {answer.status} without JSON: correct its address"
            ) from error

    async def _request(
        self, access: Access, context: Context, method: str, path: str, **rest: Any
    ) -> Answer:
        headers = {**access.headers, **rest.pop("headers", {})}
        return await context.http.request(
            method, access.url + path, headers=headers, timeout=self.timeout, **rest
        )

    async def _access(self, context: Context, refused: Access | None = None) -> Access:
        async with self._signing_in:  # one token for concurrent deliveries
            access = self._accesses.get("")
            if access is None or access is refused:
                access = await self.sign_in(context)
                left = DAY if access.seconds is None else max(0.0, access.seconds - _RENEW_EARLY)
                self._accesses.keep("", access, left)
            return access

    # State of this process, not options

    @cached_property
    def _accesses(self) -> TtlCache[str, Access]:
        return TtlCache(DAY)

    @cached_property
    def _signing_in(self) -> asyncio.Lock:
        return asyncio.Lock()
