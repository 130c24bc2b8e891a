"""`Stream`: publish events to an event bus, through FastStream."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import msgspec
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo

from offhook import CallEvent, Context, EventType, Handler, PermanentError
from offhook.testing import sample_events
from workers.handlers.cloud_event import attributes
from workers.handlers.event_bus.address import bus_of, parse
from workers.handlers.event_bus.brokers import Nats
from workers.handlers.event_bus.bus import Bus, Message
from workers.handlers.templates import fill

_UNSAFE = re.compile(r"[^\w-]", re.ASCII)


def _check_url(value: SecretStr) -> SecretStr:
    parse(value.get_secret_value())
    return value


def _check_topic(value: str, others: ValidationInfo) -> str:
    if "url" in others.data:
        for event in sample_events("calls"):
            try:
                _topic(value, event, bus_of(others.data["url"]))
            except PermanentError as error:
                raise ValueError(str(error)) from error
    return value


def _check_through(value: str, others: ValidationInfo) -> str:
    if "url" in others.data:
        bus = bus_of(others.data["url"])
        if value and bus.through is None:
            raise ValueError(f"{bus.title} has neither streams nor exchanges: leave it out")
        if not value and bus is Nats:
            raise ValueError("must name the JetStream stream: NATS alone stores nothing")
    return value


@dataclass(frozen=True)
class Stream(Handler):
    """Publish events to Kafka, RabbitMQ, NATS JetStream or MQTT."""

    url: Annotated[
        SecretStr,
        AfterValidator(_check_url),
        Field(description="the broker: kafka://, amqp://, nats:// or mqtt://, user:password@host"),
    ]
    topic: Annotated[
        str,
        AfterValidator(_check_topic),
        Field(description="the topic, routing key or subject, a Jinja template"),
    ] = "calls"
    through: Annotated[
        str,
        AfterValidator(_check_through),
        Field(
            validate_default=True,
            description="the JetStream stream or the RabbitMQ exchange to publish through",
        ),
    ] = ""
    cloudevents: Annotated[
        Literal["off", "structured"],
        Field(description="structured: wrap the event in a CloudEvent 1.0"),
    ] = "off"
    timeout: Annotated[
        float, Field(gt=0, le=300, description="seconds to wait for the broker's acknowledgement")
    ] = 10.0

    events: ClassVar[Sequence[EventType]] = (
        EventType.CALL_STARTED,
        EventType.CALL_ANSWERED,
        EventType.CALL_ENDED,
        EventType.MISSED_CALL,
        EventType.CALL_CORRECTED,
    )

    async def handle(self, event: CallEvent, context: Context) -> None:
        message = self._message(event)
        loop = asyncio.get_running_loop()
        bus = self._buses.get(loop)
        if bus is None:
            address = parse(self.url.get_secret_value())
            bus = self._buses[loop] = bus_of(self.url)(address, self.through, self.timeout)
        try:
            await bus.publish(message)
        except BaseException:
            if not bus.lasts and self._buses.get(loop) is bus:
                del self._buses[loop]
                await bus.close()
            raise

    @cached_property
    def _buses(self) -> WeakKeyDictionary[asyncio.AbstractEventLoop, Bus]:
        """The connections, by event loop: a connection works only in the loop that opened it."""
        return WeakKeyDictionary()

    def _message(self, event: CallEvent) -> Message:
        content_type, body = "application/json", msgspec.json.encode(event)
        if self.cloudevents == "structured":
            content_type = "application/cloudevents+json"
            cloud_event = attributes(event, "application/json") | {
                "specversion": "1.0",
                "data": event,
            }
            body = msgspec.json.encode(cloud_event)
        return Message(
            topic=_topic(self.topic, event, bus_of(self.url)),
            key=event.call,
            id=event.id,
            content_type=content_type,
            body=body,
            headers={"id": event.id, "type": event.type},
        )


def _topic(template: str, event: CallEvent, bus: type[Bus]) -> str:
    topic = fill("topic", template, _safe, event=event)
    if not bus.topics.fullmatch(topic):
        raise PermanentError(f"{topic!r} is not a topic that {bus.title} accepts")
    return topic


def _safe(value: Any) -> str:
    """A value that cannot add a level, a wildcard or a space to the topic."""
    return "none" if value is None else _UNSAFE.sub("_", str(value))
