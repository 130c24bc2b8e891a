"""`offhook agents`: show the agents of a queue; log one in or out, or pause one."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from offhook.errors import ConfigError
from offhook_cli import completion
from offhook_cli.options import Json, PbxName, Tenant, UserId
from offhook_cli.pbx_api import in_words, pbx_api
from offhook_cli.pbx_list import ListRequest, read, with_list_options
from offhook_cli.screen import note, print_json, print_table
from unifiedapi.resources import AgentStatus, QueueAgent

# The fields of the API: what we call each, and its value. The first ones are shown by default.
_FIELDS: dict[str, tuple[str, Callable[[QueueAgent], str | None]]] = {
    "agentNumber": ("agent", lambda agent: agent.agent_number),
    "status": ("status", lambda agent: in_words(agent.status)),
    "type": ("kind", lambda agent: agent.type),
    "queue": ("queue", lambda agent: agent.queue),
    "identifier": ("identifier", lambda agent: agent.identifier),
}
_DEFAULT = ("agentNumber", "status", "type")


@with_list_options
def agents(
    queue: Annotated[
        str,
        typer.Argument(
            help="The queue's extension.", metavar="QUEUE", autocompletion=completion.extensions
        ),
    ],
    agent: Annotated[
        str | None,
        typer.Argument(
            help="An agent's extension, or a remote agent's number.",
            metavar="AGENT",
            show_default="all",
            autocompletion=completion.extensions,
        ),
    ] = None,
    login: Annotated[
        bool, typer.Option("--login", help="Log the agent in, or end a pause.")
    ] = False,
    logout: Annotated[bool, typer.Option("--logout", help="Log the agent out.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Pause the agent.")] = False,
    *,
    request: ListRequest,
    pbx: PbxName = None,
    user: UserId = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Show the agents of a queue; log one in or out, or pause one.

    The fields are agentNumber, status, type, queue and identifier. The PBX
    sorts by status.

    \b
    Examples:
      offhook agents '0003*400'
      offhook agents '0003*400' '0003*210' --pause
      offhook agents '0003*400' --filter-by status --filter-value 1
      offhook agents '0003*400' --fields 'status, identifier' --json
    """
    status = _wanted(agent, login, logout, pause)
    found = asyncio.run(_done(queue, agent, status, pbx, user, tenant, request))
    chosen = ["agentNumber", *request.fields] if request.fields else _DEFAULT
    shown = [_FIELDS[name] for name in dict.fromkeys(chosen) if name in _FIELDS]
    if as_json:
        print_json([{title: value(each) for title, value in shown} for each in found])
    elif not found:
        note("The PBX reports no agents.")
    else:
        titles = [title for title, _ in shown]
        print_table(*titles, rows=[[value(each) or "-" for _, value in shown] for each in found])


def _wanted(agent: str | None, login: bool, logout: bool, pause: bool) -> AgentStatus | None:
    wanted = [
        status
        for given, status in (
            (login, AgentStatus.ONLINE),
            (logout, AgentStatus.LOGGED_OUT),
            (pause, AgentStatus.PAUSED),
        )
        if given
    ]
    if len(wanted) > 1:
        raise ConfigError("use only one of --login, --logout and --pause")
    if wanted and agent is None:
        raise ConfigError("name the agent after the queue")
    return wanted[0] if wanted else None


async def _done(
    queue: str,
    agent: str | None,
    status: AgentStatus | None,
    pbx: str | None,
    user: str | None,
    tenant: str,
    request: ListRequest,
) -> Sequence[QueueAgent]:
    async with pbx_api(pbx, user, tenant) as (api, user_id):
        if agent is not None and status is not None:
            await api.queue_agents.update(queue, agent, status, user=user_id)
        listing = api.queue_agents.list(queue, agent, user=user_id, **request.options)
        return await read(listing, request.count)
