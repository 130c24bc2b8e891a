"""Queue agents who are on the phone: paused in their queues, and back when they have hung up."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr, TypeAdapter

from offhook import Call, CallEvent, Context, EventType, Handler, PermanentError, TemporaryError
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import AgentInvalid, ApiError, InvalidRequest, OAuthError, UnifiedApiError
from unifiedapi.oauth import BearerToken, ClientCredentials
from unifiedapi.resources import AgentStatus

_KEPT = 86_400.0  # seconds; no call lasts longer
_KNOWN_FOR = 300.0  # seconds that a queue's agents are taken for known
_TIMEOUT = 5.0  # seconds for one request; what fails is delivered again, so none is repeated

_names = TypeAdapter(list[str])
_steps = TypeAdapter(dict[str, str])
# What was done to an agent in a queue. A process may be killed between the two.
_PAUSING, _PAUSED = "pausing", "paused"


@dataclass(frozen=True)
class Agents(Handler):
    """Pause queue agents while their phone is on a call outside the queue."""

    events: ClassVar = (
        EventType.DIAL_OUT,
        EventType.ANSWER_OUT,
        EventType.ANSWER_IN,
        EventType.HANGUP,
        EventType.CALL_ENDED,
    )

    host: Annotated[
        str,
        Field(
            pattern=r"^https?://[^\s/?#@]+/?$",
            description="the PBX's address, such as https://pbx.example.com",
        ),
    ]
    queues: Annotated[
        list[str], Field(min_length=1, description="the queues' extensions, such as 0003*400")
    ]
    client_id: Annotated[
        str | None, Field(description="the key of an app that is registered on the PBX as trusted")
    ] = None
    client_secret: Annotated[SecretStr | None, Field(description="the secret of that app")] = None
    token: Annotated[
        SecretStr | None,
        Field(description="instead of key and secret, a token that nobody renews"),
    ] = None
    ca_file: Annotated[
        Path | None,
        Field(description="the certificate authority to trust, as PEM; if not the well-known ones"),
    ] = None
    user: Annotated[
        str,
        Field(
            pattern=r"^(@me|@viewer|@owner|[0-9]+)$",
            description="whose queues they are: @me (the app's user), @owner, or a user's id",
        ),
    ] = "@me"

    def __post_init__(self) -> None:
        app = (self.client_id, self.client_secret)
        if (self.token is None) is (None in app) or (self.token and app != (None, None)):
            raise ValueError("needs either client_id and client_secret, or a token")

    async def handle(self, event: CallEvent, context: Context) -> None:
        call = await context.call()
        try:
            for agent in _concerned(event, call):
                queues = await self._queues_of(agent, context)
                if queues:
                    # Whatever event this is: what counts is what the agent does by now.
                    busy = self._is_busy(agent, event, call)
                    await self._set(agent, call, queues, context, busy=busy)
        except UnifiedApiError as error:
            raise _delivery_error(error) from error

    @asynccontextmanager
    async def _api(self) -> AsyncIterator[UnifiedApi]:
        auth: BearerToken | ClientCredentials
        if self.token is not None:
            auth = BearerToken(self.token.get_secret_value())
        else:
            secret = self.client_secret.get_secret_value() if self.client_secret else ""
            auth = ClientCredentials(self.client_id or "", secret)
        async with UnifiedApi(
            self.host, auth, ca_file=self.ca_file, timeout=_TIMEOUT, waits=()
        ) as api:
            yield api

    async def _queues_of(self, agent: str, context: Context) -> dict[str, str]:
        """The queues that an extension is an agent of: queue -> the number it has there."""
        found = {}
        for queue in self.queues:
            known = await context.memory.get(f"agents/{queue}")
            if known is None:
                async with self._api() as api:
                    listed = api.queue_agents.list(queue, user=self.user)
                    known = _names.dump_json([each.agent_number async for each in listed]).decode()
                await context.memory.set(f"agents/{queue}", known, _KNOWN_FOR)
            for number in _names.validate_json(known):
                if number in (agent, agent.rpartition("*")[2]):
                    found[queue] = number
        return found

    def _is_busy(self, agent: str, event: CallEvent, call: Call) -> bool:
        """Is the agent on this call, and is it none that a queue has put through?"""
        if event.type is EventType.CALL_ENDED or {*call.extensions} & {*self.queues}:
            return False
        if event.caller.extension in self.queues:
            return False
        return any(
            leg.extension == agent
            and leg.ended is None
            and (leg.direction == "out" or leg.answered is not None)
            for leg in call.legs
        )

    async def _set(
        self, agent: str, call: Call, queues: dict[str, str], context: Context, *, busy: bool
    ) -> None:
        """Keep which calls the agent is on; pause or resume the agent when that is due."""
        about = f"{call.pbx}/{agent}"
        async with context.memory.lock(about):
            calls = _names.validate_json(await context.memory.get(f"calls/{about}") or "[]")
            others = [each for each in calls if each != call.id]
            if not busy and others == calls:
                return
            # A call is written down before its pause, and off after it: killed in between, the
            # next delivery does what is left.
            if busy:
                await self._keep(about, [*others, call.id], context)
                async with self._api() as api:
                    await self._pause(about, queues, api, context)
                return
            if not others:
                async with self._api() as api:
                    await self._resume(about, queues, api, context)
            await self._keep(about, others, context)

    async def _keep(self, about: str, calls: list[str], context: Context) -> None:
        await context.memory.set(f"calls/{about}", _names.dump_json(calls).decode(), _KEPT)

    async def _pause(
        self, about: str, queues: dict[str, str], api: UnifiedApi, context: Context
    ) -> None:
        """Pause in every queue where the agent is logged in, unless that was done before."""
        steps = _steps.validate_json(await context.memory.get(f"paused/{about}") or "{}")
        for queue, number in queues.items():
            if steps.get(queue) == _PAUSED:  # who is back since then wants it so
                continue
            status = await self._status(queue, number, api)
            if status is AgentStatus.ONLINE:
                steps[queue] = _PAUSING
                await self._note(about, steps, context)
                await api.queue_agents.update(queue, number, AgentStatus.PAUSED, user=self.user)
            elif steps.get(queue) != _PAUSING:  # logged out, or paused by hand
                continue
            steps[queue] = _PAUSED
            await self._note(about, steps, context)

    async def _resume(
        self, about: str, queues: dict[str, str], api: UnifiedApi, context: Context
    ) -> None:
        """End the pauses that were made here, and no other."""
        steps = _steps.validate_json(await context.memory.get(f"paused/{about}") or "{}")
        for queue in list(steps):
            number = queues.get(queue)  # None: no agent of it any more
            if number and await self._status(queue, number, api) is AgentStatus.PAUSED:
                await api.queue_agents.update(queue, number, AgentStatus.ONLINE, user=self.user)
            del steps[queue]
            await self._note(about, steps, context)

    async def _note(self, about: str, steps: dict[str, str], context: Context) -> None:
        if steps:
            said = _steps.dump_json(steps).decode()
            await context.memory.set(f"paused/{about}", said, _KEPT)
        else:
            await context.memory.delete(f"paused/{about}")

    async def _status(self, queue: str, number: str, api: UnifiedApi) -> AgentStatus | None:
        try:
            listed = api.queue_agents.list(queue, number, user=self.user)
            found = [agent.status async for agent in listed]
        except AgentInvalid:  # not any more
            return None
        return found[0] if found else None


def _concerned(event: CallEvent, call: Call) -> Iterable[str]:
    """The extensions that an event may mean something for."""
    return call.extensions if event.type is EventType.CALL_ENDED else (event.extension,)


def _delivery_error(error: UnifiedApiError) -> TemporaryError | PermanentError:
    if isinstance(error, OAuthError):
        return TemporaryError(f"the PBX gives no token: {error}")
    if isinstance(error, ApiError):
        refused = f"the PBX refuses: {error}"
        if error.status in (400, 404) and error.code:  # such as a queue that there is not
            return PermanentError(refused)
        return TemporaryError(refused, error.retry_after)
    if isinstance(error, InvalidRequest):
        return PermanentError(str(error))
    return TemporaryError(str(error))
