"""`Agents`: pause queue agents during their other calls, through the PBX's API."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr, TypeAdapter

from offhook import Call, CallEvent, Context, EventType, Handler, PermanentError, TemporaryError
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import AgentInvalid, ApiError, InvalidRequest, OAuthError, UnifiedApiError
from unifiedapi.oauth import BearerToken, ClientCredentials
from unifiedapi.resources import AgentStatus

_REMEMBER = 86_400.0  # seconds; no call lasts longer
_AGENTS_LIFETIME = 300.0  # seconds that the list of a queue's agents is cached
_TIMEOUT = 5.0  # seconds for one request; a redelivery takes the place of retries

_names = TypeAdapter(list[str])
_steps = TypeAdapter(dict[str, str])
# The state of an agent's pause in a queue. The process may be killed between the two.
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
    client_id: Annotated[str | None, Field(description="the key of an app that the PBX trusts")] = (
        None
    )
    client_secret: Annotated[SecretStr | None, Field(description="that app's secret")] = None
    token: Annotated[
        SecretStr | None,
        Field(description="an access token, instead of key and secret; it is never renewed"),
    ] = None
    ca_file: Annotated[
        Path | None,
        Field(
            description="a PEM file of the certificate authorities to trust, instead of the usual"
        ),
    ] = None
    user: Annotated[
        str,
        Field(
            pattern=r"^(@me|@viewer|@owner|[0-9]+)$",
            description="the owner of the queues: @me (the app's user), @owner, or a user's id",
        ),
    ] = "@me"

    def __post_init__(self) -> None:
        app = (self.client_id, self.client_secret)
        if (self.token is None) is (None in app) or (self.token and app != (None, None)):
            raise ValueError("needs either client_id and client_secret, or a token")

    async def handle(self, event: CallEvent, context: Context) -> None:
        call = await context.call()
        try:
            for agent in _affected(event, call):
                queues = await self._queues_of(agent, context)
                if queues:
                    # Not the event decides, but the call as known by now: the event may be late.
                    busy = self._is_busy(agent, event, call)
                    await self._update(agent, call, queues, context, busy=busy)
        except UnifiedApiError as error:
            raise _delivery_error(error) from error

    def _api(self) -> UnifiedApi:
        auth: BearerToken | ClientCredentials
        if self.token is not None:
            auth = BearerToken(self.token.get_secret_value())
        else:
            secret = self.client_secret.get_secret_value() if self.client_secret else ""
            auth = ClientCredentials(self.client_id or "", secret)
        return UnifiedApi(self.host, auth, ca_file=self.ca_file, timeout=_TIMEOUT, waits=())

    async def _queues_of(self, agent: str, context: Context) -> dict[str, str]:
        """The queues of an agent, each with the agent's number in it."""
        found = {}
        for queue in self.queues:
            known = await context.memory.get(f"agents/{queue}")
            if known is None:
                async with self._api() as api:
                    listed = api.queue_agents.list(queue, user=self.user)
                    known = _names.dump_json([each.agent_number async for each in listed]).decode()
                await context.memory.set(f"agents/{queue}", known, _AGENTS_LIFETIME)
            for number in _names.validate_json(known):
                if number in (agent, agent.rpartition("*")[2]):
                    found[queue] = number
        return found

    def _is_busy(self, agent: str, event: CallEvent, call: Call) -> bool:
        """Return whether the agent is on this call, and no queue put it through."""
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

    async def _update(
        self, agent: str, call: Call, queues: dict[str, str], context: Context, *, busy: bool
    ) -> None:
        """Update the list of the agent's calls, and pause or resume the agent if necessary."""
        key = f"{call.pbx}/{agent}"
        async with context.memory.lock(key):
            calls = _names.validate_json(await context.memory.get(f"calls/{key}") or "[]")
            others = [each for each in calls if each != call.id]
            if not busy and others == calls:
                return
            # The call is saved before the pause and removed after it: if the process is killed in
            # between, the redelivery finishes the work.
            if busy:
                await self._save_calls(key, [*others, call.id], context)
                async with self._api() as api:
                    await self._pause(key, queues, api, context)
                return
            if not others:
                async with self._api() as api:
                    await self._resume(key, queues, api, context)
            await self._save_calls(key, others, context)

    async def _save_calls(self, key: str, calls: list[str], context: Context) -> None:
        await context.memory.set(f"calls/{key}", _names.dump_json(calls).decode(), _REMEMBER)

    async def _pause(
        self, key: str, queues: dict[str, str], api: UnifiedApi, context: Context
    ) -> None:
        """Pause the agent in every queue where they are logged in, once per pause."""
        steps = _steps.validate_json(await context.memory.get(f"paused/{key}") or "{}")
        for queue, number in queues.items():
            if steps.get(queue) == _PAUSED:  # an agent who is online again chose to be
                continue
            status = await self._status(queue, number, api)
            if status is AgentStatus.ONLINE:
                steps[queue] = _PAUSING
                await self._save_steps(key, steps, context)
                await api.queue_agents.update(queue, number, AgentStatus.PAUSED, user=self.user)
            elif steps.get(queue) != _PAUSING:  # logged out, or paused by hand
                continue
            steps[queue] = _PAUSED
            await self._save_steps(key, steps, context)

    async def _resume(
        self, key: str, queues: dict[str, str], api: UnifiedApi, context: Context
    ) -> None:
        """End the pauses that this handler started, and no others."""
        steps = _steps.validate_json(await context.memory.get(f"paused/{key}") or "{}")
        for queue in list(steps):
            number = queues.get(queue)  # None: no longer an agent of this queue
            if number and await self._status(queue, number, api) is AgentStatus.PAUSED:
                await api.queue_agents.update(queue, number, AgentStatus.ONLINE, user=self.user)
            del steps[queue]
            await self._save_steps(key, steps, context)

    async def _save_steps(self, key: str, steps: dict[str, str], context: Context) -> None:
        if steps:
            saved = _steps.dump_json(steps).decode()
            await context.memory.set(f"paused/{key}", saved, _REMEMBER)
        else:
            await context.memory.delete(f"paused/{key}")

    async def _status(self, queue: str, number: str, api: UnifiedApi) -> AgentStatus | None:
        try:
            listed = api.queue_agents.list(queue, number, user=self.user)
            found = [agent.status async for agent in listed]
        except AgentInvalid:  # no longer an agent
            return None
        return found[0] if found else None


def _affected(event: CallEvent, call: Call) -> Iterable[str]:
    """The extensions whose state this event may change."""
    return call.extensions if event.type is EventType.CALL_ENDED else (event.extension,)


def _delivery_error(error: UnifiedApiError) -> TemporaryError | PermanentError:
    if isinstance(error, OAuthError):
        return TemporaryError(f"the PBX gives no token: {error}")
    if isinstance(error, ApiError):
        refused = f"the PBX refuses: {error}"
        if error.status in (400, 404) and error.code:  # such as a queue that does not exist
            return PermanentError(refused)
        return TemporaryError(refused, error.retry_after)
    if isinstance(error, InvalidRequest):
        return PermanentError(str(error))
    return TemporaryError(str(error))
