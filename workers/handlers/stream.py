"""Events out to an event bus: Kafka, RabbitMQ, NATS or MQTT, all of them through FastStream."""

import asyncio
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from weakref import WeakKeyDictionary

import msgspec
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo

from offhook import CallEvent, Context, EventType, Handler, PermanentError, TemporaryError
from offhook.testing import sample_events

_CLOSING = 5.0  # seconds that a connection may take to end

# What an event says must not make a level, a wildcard or a space of a topic.
_UNSAFE = re.compile(r"[^\w-]", re.ASCII)
_environment = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined,
    autoescape=False,
    finalize=lambda value: "none" if value is None else _UNSAFE.sub("_", str(value)),
)
_template = cache(_environment.from_string)

_SASL = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}


@dataclass(frozen=True)
class _Address:
    """What a URL says. `hosts`: each as `host:port`."""

    scheme: str
    hosts: tuple[str, ...]
    path: str
    security: BaseSecurity | None


def _address(url: str) -> _Address:
    """Raises ValueError, a sentence without anything of the URL, when it is none of ours."""
    parts = urlsplit(url)
    if parts.scheme not in _BUSES:
        raise ValueError(f"must begin with one of {', '.join(f'{s}://' for s in _BUSES)}")
    bus = _BUSES[parts.scheme]
    credentials, _, named = parts.netloc.rpartition("@")
    hosts = tuple(_host_and_port(each, bus.port(parts.scheme)) for each in named.split(","))
    if len(hosts) > 1 and not bus.many_hosts:
        raise ValueError(f"{bus.title} takes one host: name its load balancer, or one of them")
    options = dict(parse_qsl(parts.query))
    mechanism = options.pop("mechanism", "PLAIN")
    if options or mechanism not in _SASL or (mechanism != "PLAIN" and bus is not _Kafka):
        raise ValueError(f"may end in ?mechanism= with one of {', '.join(_SASL)}, for Kafka alone")
    context = ssl.create_default_context() if parts.scheme in _WITH_TLS else None
    username, _, password = credentials.partition(":")
    security = BaseSecurity(ssl_context=context) if context else None
    if credentials:
        security = _SASL[mechanism](unquote(username), unquote(password), ssl_context=context)
    return _Address(parts.scheme, hosts, unquote(parts.path.removeprefix("/")), security)


def _host_and_port(named: str, port: int) -> str:
    if not (found := re.fullmatch(r"([\w.-]+|\[[\da-fA-F:.]+\])(?::(\d{1,5}))?", named)):
        raise ValueError("must name a host, or several with commas between them, maybe with ports")
    return f"{found[1]}:{found[2] or port}"


@dataclass(frozen=True)
class _Message:
    topic: str
    key: str
    id: str
    content_type: str
    body: bytes
    headers: dict[str, str]


class _Bus(ABC):
    """A connection to a broker.

    Attributes:
        title: what people call it.
        ports: the usual one, and the one with TLS.
        many_hosts: may its URL name several?
        through: what it calls the thing that messages go through, if it has one.
        topics: what its topics look like.
    """

    title: ClassVar[str]
    ports: ClassVar[tuple[int, int]]
    many_hosts: ClassVar[bool] = False
    through: ClassVar[str | None] = None
    topics: ClassVar[re.Pattern[str]]

    @classmethod
    def port(cls, scheme: str) -> int:
        return cls.ports[scheme in _WITH_TLS]

    def __init__(self, address: _Address, through: str, timeout: float) -> None:
        self._where = ",".join(address.hosts)  # in errors: without credentials
        self._through = through
        self._timeout = timeout
        self._broker = self._make(address)
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._connection: asyncio.Task[None] | None = None

    @abstractmethod
    def _make(self, address: _Address) -> Any:
        """FastStream's broker, not yet connected."""

    @abstractmethod
    async def _publish(self, message: _Message) -> None:
        """Returns when the broker has acknowledged it. Raises whatever its client raises."""

    @abstractmethod
    def _refusal(self, error: Exception, topic: str) -> Exception | None:
        """What to raise when the broker said no; None when it said nothing."""

    async def publish(self, message: _Message) -> None:
        """Connect if need be, and return when the broker has acknowledged the message.

        Raises:
            TemporaryError: it did not, or refuses it until somebody puts something right.
            PermanentError: it will never take this message.
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
        """Is it of use after a failure? Most brokers close what they said no on."""
        return False

    async def close(self) -> None:
        """End the connection, if there is one."""
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
        await asyncio.sleep(0)  # what is cancelled before it began would not stop anything

    async def _keep(self) -> None:
        # A task, because an event loop that ends cancels those that are left, and waits for them.
        try:
            await asyncio.Event().wait()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        with suppress(Exception):  # nobody needs it any more, whatever it says
            async with asyncio.timeout(_CLOSING):
                await self._end()

    async def _end(self) -> None:
        await self._broker.stop()

    def _bad_credentials(self) -> TemporaryError:
        return TemporaryError(f"{self._where} refuses the credentials: correct those of the url")

    def _no_right(self, topic: str) -> TemporaryError:
        return TemporaryError(
            f"{self._where} gives no right to publish to {topic!r}: grant it to the url's user"
        )

    def _too_large(self, topic: str) -> PermanentError:
        return PermanentError(
            f"the event is larger than {self._where} takes in {topic!r}: raise its limit"
        )


class _Kafka(_Bus):
    title = "Kafka"
    ports = (9092, 9093)
    many_hosts = True
    topics = re.compile(r"[\w.-]{1,249}", re.ASCII)

    def _make(self, address: _Address) -> Any:
        from faststream.kafka import KafkaBroker

        return KafkaBroker(
            address.hosts,
            security=address.security,
            client_id="offhook",
            acks="all",
            enable_idempotence=True,
            # Less than ours, so that the client has the time to say what it waited for.
            request_timeout_ms=int(self._timeout * 800),
            logger=None,
        )

    @property
    def lasts(self) -> bool:
        # The client connects again by itself, and does not stop before it got rid of all it has.
        return self._connection is not None

    async def _publish(self, message: _Message) -> None:
        await self._broker.publish(
            message.body,
            topic=message.topic,
            key=message.key.encode(),
            headers={"content-type": message.content_type, **message.headers},
            correlation_id=message.id,
        )

    def _refusal(self, error: Exception, topic: str) -> Exception | None:
        from aiokafka import errors  # type: ignore[import-untyped]

        match error:
            case errors.UnknownTopicOrPartitionError():
                return TemporaryError(f"{self._where} has no topic {topic!r}: create it")
            case errors.TopicAuthorizationFailedError() | errors.ClusterAuthorizationFailedError():
                return self._no_right(topic)
            case errors.AuthenticationFailedError() | errors.UnsupportedSaslMechanismError():
                return self._bad_credentials()
            case errors.MessageSizeTooLargeError() | errors.RecordListTooLargeError():
                return self._too_large(topic)
        return None


class _Rabbit(_Bus):
    title = "RabbitMQ"
    ports = (5672, 5671)
    through = "exchange"
    topics = re.compile(r".{1,255}")

    def _make(self, address: _Address) -> Any:
        from faststream.rabbit import Channel, RabbitBroker, RabbitExchange

        self._exchange = RabbitExchange(self._through, declare=False)
        scheme, vhost = address.scheme, quote(address.path or "/", safe="")
        return RabbitBroker(
            f"{scheme}://{address.hosts[0]}/{vhost}",
            security=address.security,
            # An exchange that routes a message nowhere acknowledges it all the same.
            default_channel=Channel(publisher_confirms=True, on_return_raises=True),
            logger=None,
        )

    async def _publish(self, message: _Message) -> None:
        await self._broker.publish(
            message.body,
            routing_key=message.topic,
            exchange=self._exchange,
            persist=True,
            message_id=message.id,
            correlation_id=message.id,
            content_type=message.content_type,
            headers=message.headers,
        )

    def _refusal(self, error: Exception, topic: str) -> Exception | None:
        from aiormq import exceptions

        match error:
            case exceptions.PublishError():
                return TemporaryError(
                    f"{self._where} has no queue for {topic!r}"
                    + (f" behind the exchange {self._through!r}" if self._through else "")
                    + ": declare and bind one"
                )
            case exceptions.ChannelNotFoundEntity():
                return TemporaryError(
                    f"{self._where} has no exchange {self._through!r}: declare it"
                )
            case exceptions.ChannelAccessRefused():
                return self._no_right(topic)
            case exceptions.ChannelPreconditionFailed() if "message size" in str(error):
                return self._too_large(topic)
            case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
                return self._bad_credentials()
            case exceptions.InvalidFrameError():  # aiormq does not expect the broker's no here
                return TemporaryError(
                    f"{self._where} does not open the virtual host: create the one that the url "
                    "ends in, or give its user the right to it"
                )
        return None


class _Nats(_Bus):
    title = "NATS"
    ports = (4222, 4222)
    many_hosts = True
    through = "stream"
    topics = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")

    def _make(self, address: _Address) -> Any:
        from faststream.nats import NatsBroker

        self._complaints: list[str] = []
        return NatsBroker(
            [f"{address.scheme}://{host}" for host in address.hosts],
            security=address.security,
            name="offhook",
            allow_reconnect=False,  # a connection that failed is made anew
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=self._timeout,  # type: ignore[arg-type]  # a float will do
            error_cb=self._complain,
            logger=None,
        )

    async def _complain(self, error: Exception) -> None:
        """NATS does not say which message it refuses: it complains, and leaves it unanswered."""
        self._complaints.append(str(error))

    async def _end(self) -> None:
        # Its stop() would wait 10 s for a server that hangs, and all is acknowledged already.
        if self._client is not None:
            await self._client.close()

    async def _publish(self, message: _Message) -> None:
        await self._broker.publish(
            message.body,
            subject=message.topic,
            stream=self._through,
            headers={
                "Nats-Msg-Id": message.id,
                "content-type": message.content_type,
                **message.headers,
            },
            correlation_id=message.id,
            timeout=self._timeout * 0.8,
        )

    def _refusal(self, error: Exception, topic: str) -> Exception | None:
        from nats import errors
        from nats.js import errors as js

        match error:
            case js.NoStreamResponseError() | js.BadRequestError(err_code=10060):
                return TemporaryError(
                    f"{self._where} has no stream {self._through!r} that takes {topic!r}: add it, "
                    "or the subject to it"
                )
            case errors.MaxPayloadError() | js.APIError(err_code=10054):
                return self._too_large(topic)
            case errors.TimeoutError() if any(f'"{topic}"' in each for each in self._complaints):
                return self._no_right(topic)
            case errors.Error() if "authorization" in str(error).lower():
                return self._bad_credentials()
        return None


class _Mqtt(_Bus):
    title = "MQTT"
    ports = (1883, 8883)
    topics = re.compile(r"[^+#\0]+")

    def _make(self, address: _Address) -> Any:
        from faststream.mqtt import MQTTBroker
        from zmqtt import ReconnectConfig

        return MQTTBroker(
            f"{address.scheme}://{address.hosts[0]}",
            security=address.security,
            reconnect=ReconnectConfig(enabled=False),  # a connection that failed is made anew
            mqtt_connect_timeout=self._timeout,
            logger=None,
        )

    async def _publish(self, message: _Message) -> None:
        from zmqtt import QoS

        await self._broker.publish(
            message.body,
            topic=message.topic,
            qos=QoS.AT_LEAST_ONCE,
            headers={"content-type": message.content_type, **message.headers},
            correlation_id=message.id,
        )

    def _refusal(self, error: Exception, topic: str) -> Exception | None:
        from zmqtt import MQTTConnectError, MQTTPublishError

        # The reason codes: MQTT 5.0, section 2.4.
        match error:
            case MQTTConnectError(return_code=0x86 | 0x87):
                return self._bad_credentials()
            case MQTTPublishError(reason_code=0x87):
                return self._no_right(topic)
            case MQTTPublishError(reason_code=0x95):
                return self._too_large(topic)
        return None


_BUSES: dict[str, type[_Bus]] = {
    "kafka": _Kafka,
    "kafka+ssl": _Kafka,
    "amqp": _Rabbit,
    "amqps": _Rabbit,
    "nats": _Nats,
    "tls": _Nats,
    "mqtt": _Mqtt,
    "mqtts": _Mqtt,
}
_WITH_TLS = {"kafka+ssl", "amqps", "tls", "mqtts"}


def _is_url(value: SecretStr) -> SecretStr:
    _address(value.get_secret_value())
    return value


def _is_template(value: str, others: ValidationInfo) -> str:
    """A template that events can fill, with something that the broker takes."""
    if "url" in others.data:
        for event in sample_events("calls"):
            try:
                _topic(value, event, _kind(others.data["url"]))
            except PermanentError as error:
                raise ValueError(str(error)) from error
    return value


def _fits(value: str, others: ValidationInfo) -> str:
    """What this kind of broker has."""
    if "url" in others.data:
        kind = _kind(others.data["url"])
        if value and kind.through is None:
            raise ValueError(f"{kind.title} has neither streams nor exchanges: leave it out")
        if not value and kind is _Nats:
            raise ValueError("must name the JetStream stream: NATS alone keeps nothing")
    return value


@dataclass(frozen=True)
class Stream(Handler):
    """Publish events to Kafka, RabbitMQ, NATS JetStream or MQTT."""

    url: Annotated[
        SecretStr,
        AfterValidator(_is_url),
        Field(description="the broker: kafka://, amqp://, nats:// or mqtt://, user:password@host"),
    ]
    topic: Annotated[
        str,
        AfterValidator(_is_template),
        Field(description="the topic, routing key or subject, a Jinja template"),
    ] = "calls"
    through: Annotated[
        str,
        AfterValidator(_fits),
        Field(
            validate_default=True,
            description="what takes the messages: the JetStream stream, or the RabbitMQ exchange",
        ),
    ] = ""
    cloudevents: Annotated[
        Literal["off", "structured"],
        Field(description="send a CloudEvent 1.0, with the event in it"),
    ] = "off"
    timeout: Annotated[
        float, Field(gt=0, le=300, description="seconds that the broker has to acknowledge")
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
            address = _address(self.url.get_secret_value())
            bus = self._buses[loop] = _kind(self.url)(address, self.through, self.timeout)
        try:
            await bus.publish(message)
        except BaseException:
            if not bus.lasts and self._buses.get(loop) is bus:
                del self._buses[loop]
                await bus.close()
            raise

    @cached_property
    def _buses(self) -> WeakKeyDictionary[asyncio.AbstractEventLoop, _Bus]:
        """A connection for each event loop that runs, or did: it cannot be used in another."""
        return WeakKeyDictionary()

    def _message(self, event: CallEvent) -> _Message:
        content_type, body = "application/json", msgspec.json.encode(event)
        if self.cloudevents == "structured":
            content_type = "application/cloudevents+json"
            body = msgspec.json.encode(_cloud_event(event))
        return _Message(
            topic=_topic(self.topic, event, _kind(self.url)),
            key=event.call,
            id=event.id,
            content_type=content_type,
            body=body,
            headers={"id": event.id, "type": event.type},
        )


def _kind(url: SecretStr) -> type[_Bus]:
    return _BUSES[urlsplit(url.get_secret_value()).scheme]


def _topic(template: str, event: CallEvent, kind: type[_Bus]) -> str:
    try:
        topic = _template(template).render(event=event)
    except (TemplateError, TypeError) as error:
        raise PermanentError(f"the event does not fit the topic's template: {error}") from error
    if not kind.topics.fullmatch(topic):
        raise PermanentError(f"{topic!r} is nothing to publish to with {kind.title}")
    return topic


def _cloud_event(event: CallEvent) -> dict[str, Any]:
    """As the handler `webhook` sends it; see https://github.com/cloudevents/spec, version 1.0."""
    pbx, extension = quote(event.pbx, safe=""), quote(event.extension, safe="*")
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": f"/pbx/{pbx}/extensions/{extension}",
        "type": f"offhook.call.{event.type}",
        "subject": event.call_id,
        "time": event.received,
        "datacontenttype": "application/json",
        "data": event,
    }
