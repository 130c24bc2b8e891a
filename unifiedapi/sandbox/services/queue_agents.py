"""QueueAgents: list the agents of a queue, and change their status."""

from collections.abc import Sequence

from unifiedapi.resources import AgentStatus
from unifiedapi.sandbox.collection import AGENTS, Entry
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.services.api_request import ApiRequest, extension_of, member
from unifiedapi.sandbox.store import Agent, Extension, ExtensionKind, Store


def list_(
    store: Store, request: ApiRequest, user: str, number: str, which: Sequence[str]
) -> Entry | None:
    queue = extension_of(store, request, user, number, ExtensionKind.QUEUE)
    agents = [_agent(request, queue, which[0])] if which else queue.agents
    return request.page([_entry(request, user, queue, agent) for agent in agents], AGENTS)


def update(store: Store, request: ApiRequest, user: str, number: str, which: str) -> list[Entry]:
    queue = extension_of(store, request, user, number, ExtensionKind.QUEUE)
    agent = _agent(request, queue, which)
    agent.status = member(request.json().get("status"), AgentStatus, "status_invalid")
    return [_entry(request, user, queue, agent)]


def _agent(request: ApiRequest, queue: Extension, which: str) -> Agent:
    """Return a local agent by short or extended extension, a remote one by number or id."""
    numbers = {which, f"{request.user.organization}*{which}"}
    for agent in queue.agents:
        if agent.number in numbers or (agent.identifier and agent.identifier == which):
            return agent
    raise Refused("qag_agent_invalid")


def _entry(request: ApiRequest, user: str, queue: Extension, agent: Agent) -> Entry:
    own = f"{request.base}/extensions/{user}/{queue.number}/queue/agents"
    return {
        "agentNumber": agent.number,
        "status": request.number(agent.status),
        # v5 has these three. Their contents are inferred from their names.
        "queue": queue.number,
        "type": "remote" if agent.identifier else "local",
        "identifier": agent.identifier or agent.number,
        "links": {"self": f"{own}/{agent.number}"},
    }
