"""The stream handler against real brokers: the tests read what the brokers hold afterwards."""

import asyncio
import gc
import json
import os
import signal
import ssl
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import nats
import pytest
import uvloop
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from confluent_kafka import Consumer, TopicPartition

from offhook import CallEvent, PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, context, deliver, sample_event, sample_events
from tests import brokers
from tests.brokers import LARGEST, PASSWORD, Broker
from workers.handlers.event_bus import Stream


@dataclass
class Message:
    """A message, as a consumer gets it."""

    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Bus:
    """A broker, the handler's options for it, and what it holds."""

    broker: Broker

    scheme = "kafka"
    credentials = ""
    through = ""
    settles = 0.0  # seconds until what `prepare` has made survives a kill

    def url(self, credentials: str | None = None) -> str:
        user = self.credentials if credentials is None else credentials
        return f"{self.scheme}://{user}127.0.0.1:{self.broker.port}"

    def handler(self, topic: str, **options: Any) -> Stream:
        defaults = {"url": self.url(), "topic": topic, "through": self.through, "timeout": 5.0}
        return configured(Stream, **defaults | options)

    def prepare(self, topic: str) -> None:
        """Create what receives the messages of a topic."""

    def read(self, topic: str) -> list[Message]:
        """All messages of the topic, in order."""
        raise NotImplementedError


class Kafka(Bus):
    def read(self, topic: str) -> list[Message]:
        consumer = Consumer(
            {"bootstrap.servers": f"127.0.0.1:{self.broker.port}", "group.id": "tests"}
        )
        found = []
        try:
            for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                partition = TopicPartition(topic, number, 0)
                low, high = consumer.get_watermark_offsets(partition, timeout=10)
                consumer.assign([partition])
                found += consumer.consume(high - low, timeout=10) if high > low else []
        finally:
            consumer.close()
        messages = []
        for each in found:
            body, key, headers = each.value(), each.key(), each.headers()
            assert isinstance(body, bytes)
            assert isinstance(key, bytes)
            assert isinstance(headers, list)
            told = {"key": key.decode()}
            for name, value in headers:
                assert isinstance(value, bytes)
                told[name] = value.decode()
            messages.append(Message(body, told))
        return messages


class Rabbit(Bus):
    scheme = "amqp"
    settles = 2.5  # killed sooner, RabbitMQ may lose a new queue, with the messages in it
    credentials = f"offhook:{PASSWORD}@"

    def prepare(self, topic: str) -> None:
        asyncio.run(self._declare(topic))

    async def _declare(self, topic: str) -> None:
        async with await aio_pika.connect(self.url()) as connection:
            await (await connection.channel()).declare_queue(topic, durable=True)

    def read(self, topic: str) -> list[Message]:
        return asyncio.run(self._read(topic))

    async def _read(self, topic: str) -> list[Message]:
        found = []
        async with await aio_pika.connect(self.url()) as connection:
            queue = await (await connection.channel()).get_queue(topic)
            while (each := await queue.get(fail=False)) is not None:
                told = {"id": each.message_id, "content-type": each.content_type}
                found.append(Message(each.body, {**each.headers, **told}))  # type: ignore[dict-item]
        return found


class Nats(Bus):
    scheme = "nats"
    context: ssl.SSLContext | None = None
    credentials = f"offhook:{PASSWORD}@"
    through = "CALLS"

    def prepare(self, topic: str) -> None:
        asyncio.run(self._add())

    async def _add(self) -> None:
        async with await nats.connect(self.url(), tls=self.context) as client:
            await client.jetstream().add_stream(name="CALLS", subjects=["calls.>"])

    def read(self, topic: str) -> list[Message]:
        return asyncio.run(self._read(topic))

    async def _read(self, topic: str) -> list[Message]:
        async with await nats.connect(self.url(), tls=self.context) as client:
            stream = client.jetstream()
            state = (await stream.stream_info("CALLS")).state
            found = [
                await stream.get_msg("CALLS", number)
                for number in range(state.first_seq, state.last_seq + 1)
            ]
        return [
            Message(each.data or b"", each.headers or {}) for each in found if each.subject == topic
        ]


class Mqtt(Bus):
    scheme = "mqtt"
    credentials = f"offhook:{PASSWORD}@"

    def prepare(self, topic: str) -> None:
        subprocess.run(self._subscribe(topic, "-E"), check=True, timeout=60)

    def read(self, topic: str) -> list[Message]:
        last = "the last message"
        subprocess.run(self._command("mosquitto_pub", topic, "-m", last), check=True, timeout=60)
        found: list[Message] = []
        command = self._subscribe(topic, "-W", "60", "-F", "%j")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout
            for line in map(json.loads, reader.stdout):
                body = line["payload"]
                if body == last:
                    reader.terminate()
                    return found
                headers = dict(line["properties"]["user-properties"])
                found.append(Message(body.encode(), headers))
        raise AssertionError("the last message has not come")

    def _subscribe(self, topic: str, *options: str) -> list[str]:
        """Connect as the client `reader-of-…`, whose messages the broker keeps meanwhile."""
        client = ("-i", f"reader-of-{topic}", "-c", "-x", "3600")
        return self._command("mosquitto_sub", topic, *client, *options)

    def _command(self, program: str, topic: str, *options: str) -> list[str]:
        return [program, "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(self.broker.port),
                "-u", "offhook", "-P", PASSWORD, "-q", "1", "-t", topic, *options]  # fmt: skip


BUSES: dict[str, tuple[type[Bus], Callable[[Path], AbstractContextManager[Broker]]]] = {
    "kafka": (Kafka, brokers.kafka),
    "rabbitmq": (Rabbit, brokers.rabbitmq),
    "nats": (Nats, brokers.nats),
    "mqtt": (Mqtt, brokers.mosquitto),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Bus]]:
    """Start each broker for the first test that asks for it, and stop it after the module."""
    with ExitStack() as stack:
        started: dict[str, Bus] = {}

        def get(name: str) -> Bus:
            if name not in started:
                kind, start = BUSES[name]
                started[name] = kind(stack.enter_context(start(tmp_path_factory.mktemp(name))))
            return started[name]

        yield get


@pytest.fixture(params=BUSES)
def bus(request: pytest.FixtureRequest, running: Callable[[str], Bus]) -> Bus:
    return running(request.param)


@pytest.fixture
def topic() -> str:
    """A topic for this test alone."""
    return f"calls.{uuid.uuid4().hex}"


def test_an_event_arrives(bus: Bus, topic: str) -> None:
    bus.prepare(topic)
    event = sample_event("call-ended")
    deliver(bus.handler(topic), event)
    (message,) = bus.read(topic)
    assert message.json() == event.as_dict()
    assert message.headers["id"] == event.id
    assert message.headers["type"] == "call-ended"
    assert message.headers["content-type"] == "application/json"


def test_calls_are_published_concurrently_and_each_in_order(bus: Bus, topic: str) -> None:
    """On uvloop and many calls at once, as dispatch does it."""
    bus.prepare(topic)
    handler = bus.handler(topic)

    async def publish(call: int) -> None:
        for number in range(10):
            event = sample_event("hangup", call_id=f"{call}", status=str(number))
            await handler.handle(event, context(event=event))

    async def all_of_them() -> int:
        await asyncio.gather(*map(publish, range(20)))
        return len(handler._buses)

    assert uvloop.run(all_of_them()) == 1
    statuses = defaultdict(list)
    for message in bus.read(topic):
        statuses[message.json()["call_id"]].append(message.json()["status"])
    assert statuses == {str(call): [str(n) for n in range(10)] for call in range(20)}


def test_the_kafka_key_is_the_call(running: Callable[[str], Bus], topic: str) -> None:
    bus = running("kafka")
    event = sample_event("call-ended")
    deliver(bus.handler(topic), event)
    assert bus.read(topic)[0].headers["key"] == event.call == "main/1795289400.101"


def test_nats_drops_a_redelivery(running: Callable[[str], Bus], topic: str) -> None:
    bus = running("nats")
    bus.prepare(topic)
    event = sample_event("call-ended")
    deliver(bus.handler(topic), event)
    deliver(bus.handler(topic), event, attempt=2)
    assert len(bus.read(topic)) == 1


@pytest.mark.parametrize("name", ["kafka", "rabbitmq", "mqtt"])
def test_a_redelivery_has_the_same_id(running: Callable[[str], Bus], name: str, topic: str) -> None:
    bus = running(name)
    bus.prepare(topic)
    event = sample_event("call-ended")
    deliver(bus.handler(topic), event)
    deliver(bus.handler(topic), event, attempt=2)
    assert [message.headers["id"] for message in bus.read(topic)] == [event.id] * 2


def test_a_cloud_event_can_be_read(bus: Bus, topic: str) -> None:
    bus.prepare(topic)
    event = sample_event("call-ended")
    deliver(bus.handler(topic, cloudevents="structured"), event)
    (message,) = bus.read(topic)
    assert message.headers["content-type"] == "application/cloudevents+json"
    read = from_http_event(HTTPMessage(message.headers, message.body))
    assert read.get_data() == event.as_dict()
    attributes = read.get_attributes()
    assert attributes["id"] == event.id
    assert attributes["type"] == "offhook.call.call-ended"
    assert attributes["source"] == "/pbx/main/extensions/0003*210"
    assert attributes["subject"] == event.call_id
    assert attributes["time"] == event.received


def test_values_in_a_topic_are_made_safe(bus: Bus, topic: str) -> None:
    event = sample_event("call-ended", extension="0003*210/#.>")
    bus.prepare(f"{topic}.call-ended.0003_210____")
    deliver(bus.handler(topic + ".{{ event.type }}.{{ event.extension }}"), event)
    (message,) = bus.read(f"{topic}.call-ended.0003_210____")
    assert message.json()["id"] == event.id


async def back(handler: Stream, event: CallEvent) -> None:
    """Deliver the event, and retry until the broker is back."""
    for _ in range(30):
        with suppress(TemporaryError):
            return await handler.handle(event, context(event=event))
        await asyncio.sleep(0.5)
    raise AssertionError("the broker does not come back")


@pytest.mark.parametrize("name", ["rabbitmq", "nats", "mqtt"])
async def test_a_broker_that_is_down_is_temporary_and_recovers(
    running: Callable[[str], Bus], name: str, topic: str
) -> None:
    bus = running(name)
    await asyncio.to_thread(bus.prepare, topic)
    await asyncio.sleep(bus.settles)
    handler = bus.handler(topic)
    first, second, third = (sample_event("call-ended") for _ in range(3))
    await handler.handle(first, context(event=first))
    bus.broker.kill()
    for _ in range(2):
        with pytest.raises(TemporaryError, match=f"127.0.0.1:{bus.broker.port}") as raised:
            await handler.handle(second, context(event=second))
        assert PASSWORD not in str(raised.value)
    bus.broker.start()
    await asyncio.to_thread(bus.prepare, topic)
    await back(handler, third)
    # Mosquitto keeps nothing here; with the others, acknowledged means on the disk.
    kept = [] if name == "mqtt" else [first.id]
    ids = dict.fromkeys(
        message.headers["id"] for message in await asyncio.to_thread(bus.read, topic)
    )
    assert list(ids) == [*kept, third.id]


async def test_a_broker_that_hangs_is_temporary_and_recovers(bus: Bus, topic: str) -> None:
    await asyncio.to_thread(bus.prepare, topic)
    handler = bus.handler(topic, timeout=1.0)
    first, second, third = (sample_event("call-ended") for _ in range(3))
    await back(handler, first)  # it may need more than a second to connect
    bus.broker.signal(signal.SIGSTOP)
    await asyncio.sleep(0.2)  # until all its threads have stopped
    try:
        with pytest.raises(TemporaryError, match=f"127.0.0.1:{bus.broker.port}"):
            await handler.handle(second, context(event=second))
    finally:
        bus.broker.signal(signal.SIGCONT)
    await back(handler, third)
    ids = dict.fromkeys(
        message.headers["id"] for message in await asyncio.to_thread(bus.read, topic)
    )
    assert [id for id in ids if id != second.id] == [first.id, third.id]  # noqa: A001


def test_a_refused_connection_is_temporary(bus: Bus, topic: str) -> None:
    url = bus.url().replace(str(bus.broker.port), "1")
    with pytest.raises(TemporaryError, match=r"127\.0\.0\.1:1\b") as raised:
        deliver(bus.handler(topic, url=url), sample_event("call-ended"))
    assert PASSWORD not in str(raised.value)


# nats-py leaves a socket open when it is refused. Collect it here, not in another test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["rabbitmq", "nats", "mqtt"])
def test_wrong_credentials_are_temporary_and_not_shown(
    running: Callable[[str], Bus], name: str, topic: str
) -> None:
    bus = running(name)
    handler = bus.handler(topic, url=bus.url("offhook:hush@"))
    with pytest.raises(TemporaryError, match="refuses the credentials") as raised:
        deliver(handler, sample_event("call-ended"))
    assert "hush" not in f"{raised.value}{handler!r}"
    del raised
    gc.collect()


@pytest.mark.parametrize("name", ["rabbitmq", "nats", "mqtt"])
def test_a_missing_right_is_temporary(running: Callable[[str], Bus], name: str) -> None:
    bus = running(name)
    bus.prepare("calls.other")
    through = "secret" if name == "rabbitmq" else bus.through
    with pytest.raises(TemporaryError, match=r"does not allow publishing to 'calls\.secret'"):
        deliver(bus.handler("calls.secret", through=through), sample_event("call-ended"))


@pytest.mark.parametrize("name", ["rabbitmq", "nats", "mqtt"])
async def test_an_event_that_is_too_large_is_permanent_and_the_next_is_delivered(
    running: Callable[[str], Bus], name: str, topic: str
) -> None:
    bus = running(name)
    await asyncio.to_thread(bus.prepare, topic)
    handler = bus.handler(topic)
    event, large = (
        sample_event("hangup", parameters={"CallID": "x" * size}) for size in (1, LARGEST)
    )
    with pytest.raises(PermanentError, match="larger than"):
        await handler.handle(large, context(event=large))
    await handler.handle(event, context(event=event))
    assert [message.headers["id"] for message in await asyncio.to_thread(bus.read, topic)] == [
        event.id
    ]


def test_an_event_that_is_too_large_for_kafka_is_permanent(
    running: Callable[[str], Bus], topic: str
) -> None:
    event = sample_event("hangup", parameters={"CallID": "x" * 2_000_000})
    with pytest.raises(PermanentError, match="larger than"):
        deliver(running("kafka").handler(topic), event)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rabbitmq", {"topic": "nowhere"}, "has no queue for 'nowhere': declare"),
        ("rabbitmq", {"through": "calls"}, "has no queue for .* behind the exchange 'calls'"),
        ("rabbitmq", {"through": "nowhere"}, "has no exchange 'nowhere'"),
        ("nats", {"topic": "nowhere"}, "has no stream 'CALLS' for 'nowhere'"),
        ("nats", {"through": "NOWHERE"}, "has no stream 'NOWHERE' for"),
    ],
)
def test_a_missing_queue_exchange_or_stream_is_temporary(
    running: Callable[[str], Bus], topic: str, name: str, options: dict[str, str], message: str
) -> None:
    bus = running(name)
    bus.prepare("calls.other")
    with pytest.raises(TemporaryError, match=message):
        deliver(bus.handler(**{"topic": topic} | options), sample_event("call-ended"))


def test_a_missing_virtual_host_is_temporary(running: Callable[[str], Bus], topic: str) -> None:
    bus = running("rabbitmq")
    with pytest.raises(TemporaryError, match="refuses the virtual host"):
        deliver(bus.handler(topic, url=f"{bus.url()}/nowhere"), sample_event("call-ended"))


@pytest.mark.parametrize(
    ("name", "scheme"), [("rabbitmq", "amqps"), ("nats", "tls"), ("mqtt", "mqtts")]
)
def test_tls_requires_a_trusted_certificate(
    running: Callable[[str], Bus],
    tmp_path: Path,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    scheme: str,
) -> None:
    event = sample_event("call-ended")
    with ExitStack() as stack:
        bus = running(name)
        if not bus.broker.tls_port:  # NATS has one port, with TLS or without
            bus = Nats(stack.enter_context(brokers.nats(tmp_path, with_tls=True)))
            bus.context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        bus.prepare(topic)
        url = f"{scheme}://{bus.credentials}127.0.0.1:{bus.broker.tls_port}"
        with pytest.raises(TemporaryError, match=r"no acknowledgement|did not acknowledge"):
            deliver(bus.handler(topic, url=url), event)
        monkeypatch.setenv("SSL_CERT_FILE", str(bus.broker.folder / "ca.pem"))
        deliver(bus.handler(topic, url=url), event)
        assert [message.headers["id"] for message in bus.read(topic)] == [event.id]


_PUBLISHER = """
import asyncio, sys
from offhook import CallEvent
from offhook.testing import configured, context
from workers.handlers.event_bus import Stream
import json

async def publish():
    handler = configured(Stream, url=sys.argv[1], topic=sys.argv[2], through="CALLS")
    for line in sys.stdin:
        event = CallEvent.from_dict(json.loads(line))
        await handler.handle(event, context(event=event))
        print(event.id, flush=True)

asyncio.run(publish())
"""


def test_a_killed_worker_loses_and_repeats_nothing(
    running: Callable[[str], Bus], topic: str
) -> None:
    bus = running("nats")
    bus.prepare(topic)
    events = [sample_event("hangup") for _ in range(200)]
    left = list(events)
    for lines in (50, 0):
        with subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, bus.url(), topic],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write("".join(json.dumps(e.as_dict()) + "\n" for e in left))
            process.stdin.close()
            told = [
                line.strip() for line, _ in zip(process.stdout, range(lines or 999), strict=False)
            ]
            os.kill(process.pid, signal.SIGKILL)
        left = [event for event in left if event.id not in told]
    assert left == []
    assert [message.headers["id"] for message in bus.read(topic)] == [e.id for e in events]


URL = "nats://offhook:hush@broker.example.com"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"url": "hush"}, "url"),
        ({"url": "redis://hush"}, "url"),
        ({"url": "amqp://hush:5672,more"}, "url"),
        ({"url": "mqtt://"}, "url"),
        ({"url": "nats://h?mechanism=SCRAM-SHA-256"}, "url"),
        ({"url": "kafka://h?mechanism=hush"}, "url"),
        ({"url": "kafka://h?acks=0"}, "url"),
        ({"url": "kafka://[hush"}, "url"),
        ({"url": "kafka://h:hush"}, "url"),
        ({"topic": "{{ event.colour }}"}, "topic"),
        ({"topic": "{% if %}"}, "topic"),
        ({"topic": "two words"}, "topic"),
        ({"topic": "calls.*"}, "topic"),
        ({"topic": ""}, "topic"),
        ({"url": "mqtt://h", "through": "", "topic": "calls/#"}, "topic"),
        ({"url": "kafka://h", "through": "", "topic": "calls/a"}, "topic"),
        ({"url": "amqp://h", "topic": "x" * 256}, "topic"),
        ({"through": ""}, "through"),
        ({"url": "kafka://h"}, "through"),
        ({"url": "mqtts://h"}, "through"),
        ({"cloudevents": "binary"}, "cloudevents"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_an_error_names_a_wrong_option_and_hides_its_value(
    options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(Stream, **{"url": URL, "through": "CALLS"} | options)
    (problem,) = raised.value.problems
    assert problem.startswith(f"options.{name}: ")
    assert "hush" not in problem


def test_nats_requires_a_stream() -> None:
    with pytest.raises(ConfigError, match=r"options\.through: must name the JetStream stream"):
        configured(Stream, url=URL)


def test_urls_of_every_kind_are_accepted() -> None:
    for url in (
        "kafka://a,b:9093",
        "kafka+ssl://u:p%40ss@a:9093,b?mechanism=SCRAM-SHA-512",
        "kafka://u:p@[::1]:9092?mechanism=PLAIN",
        "amqps://u:p@h/vhost",
        "mqtts://u:p@h",
    ):
        configured(Stream, url=url)


def test_an_event_that_gives_no_valid_topic_is_permanent() -> None:
    handler = configured(Stream, url="kafka://127.0.0.1:1", topic="{{ event.call_id }}")
    with pytest.raises(PermanentError, match="is not a topic that Kafka accepts"):
        deliver(handler, sample_event("hangup", call_id="1" * 250))


def test_its_default_events_are_those_of_calls() -> None:
    assert list(Stream.events) == [event.type for event in sample_events("calls")]


def test_no_connection_is_made_before_the_first_event() -> None:
    """The workers fork, and would share the connection."""
    assert "_buses" not in vars(configured(Stream, url="kafka://h"))
