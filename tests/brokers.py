"""Real message brokers for tests, each in a temporary folder.

Mosquitto, NATS and RabbitMQ are Debian packages. Kafka has none, so `kafka` runs the test cluster
of librdkafka (the client that Confluent maintains): it speaks Kafka's wire protocol on a real port
and stores messages.
"""

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.ports import free_port

PASSWORD = "open-sesame-4711"
LARGEST = 100_000  # maximum bytes per message, except for Kafka

_RABBIT = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server"  # Debian's rabbitmq-server switches to another user
)


@dataclass
class Broker:
    """A broker. Tests `kill` and `start` it to see how clients react."""

    command: list[str]
    port: int
    folder: Path
    tls_port: int = 0  # with a certificate for 127.0.0.1 by the authority in `folder/ca.pem`
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,  # RabbitMQ is a script that starts other processes
            )
        until = time.monotonic() + 60
        while not self._is_listening():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the broker, so that its connections break."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(20)
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: after SIGSTOP the broker accepts and never answers, until SIGCONT."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def _is_listening(self) -> bool:
        if not self.port:
            return (self.folder / "port").exists()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def installed(program: str, package: str) -> str:
    """Return the path of a program. Without it the test is skipped, or fails in CI."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is not None:
        return found
    message = f"needs a real server: make brokers (or apt-get install {package})"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def mosquitto(folder: Path) -> Iterator[Broker]:
    """Run an MQTT broker. Its user `offhook` may use any topic except calls.secret."""
    program = installed("mosquitto", "mosquitto mosquitto-clients")
    port, tls_port = free_port(), free_port()
    _certify(folder)
    subprocess.run(
        ["mosquitto_passwd", "-c", "-b", folder / "passwords", "offhook", PASSWORD], check=True
    )
    (folder / "acl").write_text("user offhook\ntopic deny calls.secret\ntopic readwrite #\n")
    (folder / "conf").write_text(
        f"listener {port} 127.0.0.1\n"
        "allow_anonymous false\n"
        f"password_file {folder}/passwords\n"
        f"acl_file {folder}/acl\n"
        f"message_size_limit {LARGEST}\n"
        "persistence false\n"
        "user root\n"
        f"listener {tls_port} 127.0.0.1\n"
        f"certfile {folder}/certificate.pem\n"
        f"keyfile {folder}/key.pem\n"
    )
    yield from running(Broker([program, "-c", str(folder / "conf")], port, folder, tls_port))


@contextmanager
def nats(folder: Path, *, with_tls: bool = False) -> Iterator[Broker]:
    """Run NATS with JetStream. Its user `offhook` may publish anywhere except to calls.secret."""
    program, port = installed("nats-server", "nats-server"), free_port()
    _certify(folder)
    tls = f"tls {{ cert_file: {folder}/certificate.pem, key_file: {folder}/key.pem }}\n"
    (folder / "conf").write_text(
        f"host: 127.0.0.1, port: {port}, max_payload: {LARGEST}\n"
        f"jetstream {{ store_dir: {folder}/jetstream }}\n"
        f'authorization {{ users: [{{ user: offhook, password: "{PASSWORD}"\n'
        '  permissions: { publish: { deny: ["calls.secret"] } } }] }\n' + (tls if with_tls else "")
    )
    command = [program, "-c", str(folder / "conf")]
    yield from running(Broker(command, port, folder, port if with_tls else 0))


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Broker]:
    """Run RabbitMQ. Its user `offhook` may write to any exchange except `secret`."""
    installed("rabbitmq-server", "rabbitmq-server")
    port, tls_port, dist, mapper = (free_port() for _ in range(4))
    _certify(folder)
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\n"
        f"listeners.ssl.1 = 127.0.0.1:{tls_port}\n"
        f"ssl_options.certfile = {folder}/certificate.pem\n"
        f"ssl_options.keyfile = {folder}/key.pem\n"
        f"max_message_size = {LARGEST}\n"
        f"load_definitions = {folder}/definitions.json\n"
    )
    (folder / "definitions.json").write_text(json.dumps(_definitions()))
    (folder / "plugins").write_text("[].\n")
    environment = {
        "HOME": str(folder),  # its cookie
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_DIST_PORT": str(dist),
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    # An epmd started by RabbitMQ would keep running, so start one here.
    names = Broker(["epmd", "-port", str(mapper), "-address", "127.0.0.1"], mapper, folder)
    names.start()
    try:
        yield from running(Broker([_RABBIT], port, folder, tls_port, environment))
    finally:
        names.kill()


def _definitions() -> dict[str, Any]:
    # How the hash is computed: https://www.rabbitmq.com/docs/passwords#computing-password-hash
    salt = b"salt"
    hashed = base64.b64encode(salt + hashlib.sha256(salt + PASSWORD.encode()).digest())
    exchange = {"vhost": "/", "type": "topic", "durable": True, "auto_delete": False,
                "internal": False, "arguments": {}}  # fmt: skip
    return {
        "users": [{"name": "offhook", "password_hash": hashed.decode(), "tags": "",
                   "hashing_algorithm": "rabbit_password_hashing_sha256"}],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": "offhook", "vhost": "/", "configure": ".*", "read": ".*",
                         "write": "^(?!secret)"}],
        "exchanges": [{"name": name, **exchange} for name in ("calls", "secret")],
    }  # fmt: skip


@contextmanager
def kafka(folder: Path) -> Iterator[Broker]:
    """Run a cluster of one node that creates topics on demand. It cannot be restarted."""
    broker = Broker([sys.executable, "-c", _KAFKA, str(folder / "port")], 0, folder)
    try:
        broker.start()
        broker.port = int((folder / "port").read_text())
        yield broker
    finally:
        broker.kill()


# The cluster chooses its own port, and lives as long as its client.
_KAFKA = """
import pathlib, signal, sys
from confluent_kafka import Producer
client = Producer({"test.mock.num.brokers": 1})
(broker,) = client.list_topics(timeout=30).brokers.values()
pathlib.Path(sys.argv[1]).write_text(str(broker.port))
signal.pause()
"""


def _certify(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(folder / "certificate.pem"), append=True)


def running(broker: Broker) -> Iterator[Broker]:
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
