"""The brokers: what each needs to connect and publish, and what its refusals mean."""

import re
from typing import Any
from urllib.parse import quote

from offhook import TemporaryError
from workers.handlers.event_bus.bus import Address, Bus, Message


class Kafka(Bus):
    title = "Kafka"
    ports = (9092, 9093)
    many_hosts = True
    topics = re.compile(r"[\w.-]{1,249}", re.ASCII)

    def _make(self, address: Address) -> Any:
        from faststream.kafka import KafkaBroker

        return KafkaBroker(
            address.hosts,
            security=address.security,
            client_id="offhook",
            acks="all",
            enable_idempotence=True,
            # Shorter than our timeout, so that the client can report what it waited for.
            request_timeout_ms=int(self._timeout * 800),
            logger=None,
        )

    @property
    def lasts(self) -> bool:
        # The client reconnects by itself, and stop() would wait until it has sent everything.
        return self._connection is not None

    async def _publish(self, message: Message) -> None:
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


class Rabbit(Bus):
    title = "RabbitMQ"
    ports = (5672, 5671)
    through = "exchange"
    topics = re.compile(r".{1,255}")

    def _make(self, address: Address) -> Any:
        from faststream.rabbit import Channel, RabbitBroker, RabbitExchange

        self._exchange = RabbitExchange(self._through, declare=False)
        scheme, vhost = address.scheme, quote(address.path or "/", safe="")
        return RabbitBroker(
            f"{scheme}://{address.hosts[0]}/{vhost}",
            security=address.security,
            # Without this, an exchange acknowledges a message that it routes to no queue.
            default_channel=Channel(publisher_confirms=True, on_return_raises=True),
            logger=None,
        )

    async def _publish(self, message: Message) -> None:
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
            case exceptions.InvalidFrameError():  # how aiormq reports this refusal
                return TemporaryError(
                    f"{self._where} refuses the virtual host: create the one in the url's path, "
                    "or give the url's user access to it"
                )
        return None


class Nats(Bus):
    title = "NATS"
    ports = (4222, 4222)
    many_hosts = True
    through = "stream"
    topics = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")

    def _make(self, address: Address) -> Any:
        from faststream.nats import NatsBroker

        self._complaints: list[str] = []
        return NatsBroker(
            [f"{address.scheme}://{host}" for host in address.hosts],
            security=address.security,
            name="offhook",
            allow_reconnect=False,  # a failed connection is replaced
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=self._timeout,  # type: ignore[arg-type]  # a float works
            error_cb=self._complain,
            logger=None,
        )

    async def _complain(self, error: Exception) -> None:
        """NATS refuses a message without an answer to it: it only reports an error."""
        self._complaints.append(str(error))

    async def _end(self) -> None:
        # The broker's stop() waits 10 s for a server that hangs. Nothing is left to send here.
        if self._client is not None:
            await self._client.close()

    async def _publish(self, message: Message) -> None:
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
                    f"{self._where} has no stream {self._through!r} for {topic!r}: create it, or "
                    "add the subject to it"
                )
            case errors.MaxPayloadError() | js.APIError(err_code=10054):
                return self._too_large(topic)
            case errors.TimeoutError() if any(f'"{topic}"' in each for each in self._complaints):
                return self._no_right(topic)
            case errors.Error() if "authorization" in str(error).lower():
                return self._bad_credentials()
        return None


class Mqtt(Bus):
    title = "MQTT"
    ports = (1883, 8883)
    topics = re.compile(r"[^+#\0]+")

    def _make(self, address: Address) -> Any:
        from faststream.mqtt import MQTTBroker
        from zmqtt import ReconnectConfig

        return MQTTBroker(
            f"{address.scheme}://{address.hosts[0]}",
            security=address.security,
            reconnect=ReconnectConfig(enabled=False),  # a failed connection is replaced
            mqtt_connect_timeout=self._timeout,
            logger=None,
        )

    async def _publish(self, message: Message) -> None:
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
