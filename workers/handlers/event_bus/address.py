"""Read the URL of a broker, and choose the bus for it."""

import re
import ssl
from urllib.parse import parse_qsl, unquote, urlsplit

from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512
from pydantic import SecretStr

from workers.handlers.event_bus.brokers import Kafka, Mqtt, Nats, Rabbit
from workers.handlers.event_bus.bus import Address, Bus

_BUSES: dict[str, type[Bus]] = {
    "kafka": Kafka,
    "kafka+ssl": Kafka,
    "amqp": Rabbit,
    "amqps": Rabbit,
    "nats": Nats,
    "tls": Nats,
    "mqtt": Mqtt,
    "mqtts": Mqtt,
}
_WITH_TLS = {"kafka+ssl", "amqps", "tls", "mqtts"}
_SASL = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}


def bus_of(url: SecretStr) -> type[Bus]:
    """The kind of bus for a URL that `parse` accepts."""
    return _BUSES[urlsplit(url.get_secret_value()).scheme]


def parse(url: str) -> Address:
    """Read a broker's URL.

    Raises:
        ValueError: the URL is not valid. The message quotes nothing of it.
    """
    parts = urlsplit(url)
    if parts.scheme not in _BUSES:
        raise ValueError(f"must begin with one of {', '.join(f'{s}://' for s in _BUSES)}")
    bus, tls = _BUSES[parts.scheme], parts.scheme in _WITH_TLS
    credentials, _, named = parts.netloc.rpartition("@")
    hosts = tuple(_host_and_port(each, bus.ports[tls]) for each in named.split(","))
    if len(hosts) > 1 and not bus.many_hosts:
        raise ValueError(f"{bus.title} takes one host: name its load balancer, or one of them")
    options = dict(parse_qsl(parts.query))
    mechanism = options.pop("mechanism", "PLAIN")
    if options or mechanism not in _SASL or (mechanism != "PLAIN" and bus is not Kafka):
        raise ValueError(
            f"may end in ?mechanism= and one of {', '.join(_SASL)}, and only for Kafka"
        )
    context = ssl.create_default_context() if tls else None
    username, _, password = credentials.partition(":")
    security = BaseSecurity(ssl_context=context) if context else None
    if credentials:
        security = _SASL[mechanism](unquote(username), unquote(password), ssl_context=context)
    return Address(parts.scheme, hosts, unquote(parts.path.removeprefix("/")), security)


def _host_and_port(named: str, port: int) -> str:
    if not (found := re.fullmatch(r"([\w.-]+|\[[\da-fA-F:.]+\])(?::(\d{1,5}))?", named)):
        raise ValueError(
            "must name a host, or several separated by commas, each with or without a port"
        )
    return f"{found[1]}:{found[2] or port}"
