"""An Offhook handler: opens a help desk ticket for every finished call."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from offhook import Call, CallEvent, Context, EventType, Handler, Party, PermanentError
from pydantic import Field, SecretStr


@dataclass(frozen=True)
class Helpdesk(Handler):
    """Open a help desk ticket for every finished call."""

    events: ClassVar = (EventType.CALL_ENDED,)

    url: Annotated[str, Field(pattern="^https?://", description="where tickets are created")]
    token: Annotated[SecretStr, Field(description="an API token that may create tickets")]
    missed_only: Annotated[bool, Field(description="open tickets only for missed calls")] = False

    async def handle(self, event: CallEvent, context: Context) -> None:
        call = await context.call()
        if self.missed_only and call.outcome == "answered":
            return
        answer = await context.http.post(
            self.url,
            json={
                "subject": _subject(call),
                "phone": call.caller.e164 or call.caller.number,
                "assignee": context.extension.owner,
                "started": call.started.isoformat(),
                "talk_seconds": call.talk_seconds,
            },
            headers={
                "Authorization": f"Bearer {self.token.get_secret_value()}",
                # An event may arrive twice, with the same id: the help desk then keeps one ticket.
                "Idempotency-Key": event.id,
            },
        )
        if answer.status == 409:
            context.log.info("the ticket already exists")
            return
        if answer.status == 422:  # the same request would fail again, so do not retry
            raise PermanentError(f"the help desk rejected the ticket: {answer.text}")
        context.check(answer)  # an outage is retried later, any other refusal is permanent


def _subject(call: Call) -> str:
    kind = "Call" if call.outcome == "answered" else "Missed call"
    return f"{kind} from {_name(call.caller)} to {_name(call.called)}"


def _name(party: Party) -> str:
    return party.name or party.number or party.extension or "unknown"
