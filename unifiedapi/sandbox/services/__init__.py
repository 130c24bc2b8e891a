"""Answer API requests: plain functions on the store, without HTTP.

The order of the checks is not documented. Ours: user, extension, type and id in the path, then body
or query.

Sources: VoipNow wiki, Create, List, Update and Delete PhoneCallEvents, List Presence, List and
Update QueueAgents, Create Simple PhoneCalls, List CDR and CDR Resource (v3), and the v5 pages of
the same services.
"""

from typing import Any

from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.services import (
    cdr,
    phone_call_events,
    phone_calls,
    presence,
    queue_agents,
)
from unifiedapi.sandbox.services.api_request import ApiRequest
from unifiedapi.sandbox.store import Store


def answer(store: Store, request: ApiRequest) -> Any:
    """Return the JSON of the response, or None if there is nothing to return.

    Raises:
        Refused: the response is an error.
    """
    match (request.method, *request.path):
        case "POST", "extensions", user, number, "phoneCallEvents", *types if len(types) <= 1:
            return phone_call_events.create(store, request, user, number, types)
        case "GET", "extensions", user, number, "phoneCallEvents", *which if len(which) <= 2:
            return phone_call_events.list_(store, request, user, number, which)
        # Only the overview pages have an id without a type here.
        case "PUT", "extensions", user, number, "phoneCallEvents", *which if len(which) in (1, 2):
            return phone_call_events.update(store, request, user, number, which)
        case "DELETE", "extensions", user, number, "phoneCallEvents", *which if len(which) <= 2:
            return phone_call_events.delete(store, request, user, number, which)
        # Presence Service (v5) shows this as a curl line with a body (from another page), which
        # makes it a POST. That it is answered like a GET is inferred.
        case "GET" | "POST", "extensions", user, number, "presence":
            return presence.list_(store, request, user, number)
        # Only the overview page has queueAgent. All other pages have queue/agents.
        case (method, "extensions", user, number, "queue", "agents", *which) | (
            method,
            "extensions",
            user,
            number,
            "queueAgent",
            *which,
        ):
            if method == "GET" and len(which) <= 1:
                return queue_agents.list_(store, request, user, number, which)
            if method == "PUT" and len(which) == 1:
                return queue_agents.update(store, request, user, number, which[0])
        case "POST", "phoneCalls", user, "simple":
            return phone_calls.create(store, request, user)
        case "GET", "cdr", *owner if len(owner) <= 1:
            return cdr.list_(store, request, owner[0] if owner else "@me")
    raise Refused("request_not_implemented")
