"""`offhook agents`: show the agents of a queue; log one in or out, or pause one."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from offhook.errors import ConfigError
from offhook_cli.options import Json, PbxName, UserId
from offhook_cli.pbx import in_words, pbx_api
from offhook_cli.screen import note, print_json, print_table
from unifiedapi.resources import AgentStatus, QueueAgent


def agents(
    queue: Annotated[str, typer.Argument(help="The queue's extension.", metavar="QUEUE")],
    agent: Annotated[
        str | None,
        typer.Argument(
            help="An agent's extension, or a remote agent's number.",
            metavar="AGENT",
            show_default="all",
        ),
    ] = None,
    login: Annotated[
        bool, typer.Option("--login", help="Log the agent in, or end a pause.")
    ] = False,
    logout: Annotated[bool, typer.Option("--logout", help="Log the agent out.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Pause the agent.")] = False,
    pbx: PbxName = None,
    user: UserId = None,
    as_json: Json = False,
) -> None:
    """Show the agents of a queue; log one in or out, or pause one.

    \b
    Examples:
      offhook agents '0003*400'
      offhook agents '0003*400' '0003*210' --pause
    """
    status = _wanted(agent, login, logout, pause)
    found = asyncio.run(_done(queue, agent, status, pbx, user))
    if as_json:
        print_json([_as_dict(each) for each in found])
    elif not found:
        note("The queue has no agents.")
    else:
        print_table(
            "agent",
            "status",
            "kind",
            rows=[[each.agent_number, in_words(each.status), each.type or "-"] for each in found],
        )


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
    queue: str, agent: str | None, status: AgentStatus | None, pbx: str | None, user: str | None
) -> Sequence[QueueAgent]:
    async with pbx_api(pbx, user) as (api, user_id):
        if agent is not None and status is not None:
            await api.queue_agents.update(queue, agent, status, user=user_id)
        return [each async for each in api.queue_agents.list(queue, agent, user=user_id)]


def _as_dict(agent: QueueAgent) -> dict[str, Any]:
    return {"agent": agent.agent_number, "status": in_words(agent.status), "kind": agent.type}
