"""The walk of docs/cluster.md, under load: from one server to a cluster, without losing an event.

python -m tests.chaos.to_a_cluster
"""

import re
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import redis

from tests.end_to_end.test_cluster import Load
from tests.end_to_end.test_two_servers import valkey
from tests.installation import Installation, audit, wait_until
from tests.ports import free_port
from tests.valkey_cluster import SLOTS, Node, ValkeyCluster

HANDLERS = """
[handlers.fast]
use = "tests.recorders:record"
[handlers.flaky]
use = "tests.recorders:park_some"
retry = [1, 1]
[handlers.refusing]
use = "tests.recorders:refuse_until_mended"
"""


def _move_jobs(old: Node, jobs: redis.Redis, offhook: Installation) -> None:
    """Step 1: a copy of the server becomes that of RQ's jobs."""
    jobs.replicaof(*old.address)
    wait_until(lambda: jobs.info("replication")["master_link_status"] == "up", "it is a copy")
    offhook.supervisor.send_signal(signal.SIGTERM)
    offhook.supervisor.wait()
    jobs.replicaof("NO", "ONE")
    jobs.unlink(*jobs.scan_iter("offhook:*"))
    with redis.Redis(*old.address) as client:
        client.unlink(*client.scan_iter("rq:*"))


def _change(offhook: Installation, **values: str) -> None:
    config = offhook.folder / "offhook.toml"
    text = config.read_text()
    for name, value in values.items():
        text = re.sub(rf"^{name} = .*\n", "", text, flags=re.M)
        text = f"{name} = {value!r}\n{text}"
    config.write_text(text)


def _second_receiver(offhook: Installation) -> None:
    """Step 3: start a receiver with the new settings, send callbacks to it, and stop the old one.

    A proxy would do so.
    """
    before, port = offhook.receiver, free_port()
    offhook.receiver = offhook.start_receiver(port)
    wait_until(lambda: offhook.is_ready(port), "the second receiver is ready", 120)
    offhook.port = port
    time.sleep(2)  # callbacks in flight
    before.send_signal(signal.SIGTERM)
    before.wait()


def _add_nodes(cluster: ValkeyCluster) -> None:
    """Step 4: two primaries more, and three replicas."""
    old, *others = nodes = cluster.nodes
    for node in others:
        old.do("CLUSTER", "MEET", node.host, node.port, node.bus)
    cluster.wait_until_known()
    for number, node in enumerate(nodes[1:3], 1):
        first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
        old.do("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", node.id)
        wait_until(partial(_has, cluster, last, node), "it has them", 60)
    for primary, replica in zip(nodes[:3], nodes[3:], strict=True):
        replica.do("CLUSTER", "REPLICATE", primary.id)
    cluster.wait_for_replicas()


def _has(cluster: ValkeyCluster, slot: int, node: Node) -> bool:
    return cluster.primary_of(slot) is node


def main() -> int:
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        old = Node(folder, cluster=False)
        stack.callback(old.kill)
        url = f"redis://{old.host}:{old.port}/0"
        server = stack.enter_context(valkey(folder / "jobs"))
        jobs = stack.enter_context(redis.Redis.from_url(server.connection_url))
        (folder / "offhook").mkdir()
        offhook = stack.enter_context(
            Installation.running(folder / "offhook", HANDLERS, redis_url=url)
        )
        load = Load(offhook)
        stack.callback(load.stop)
        wait_until(lambda: load.outcome.count >= 200, "events are accepted")
        say("1. RQ's jobs move to a server of their own")
        _move_jobs(old, jobs, offhook)
        say("2. the server becomes a cluster of one node")
        old.kill(signal.SIGTERM)
        old.configure(cluster=True)
        old.start()
        with redis.Redis(*old.address) as client, client.pipeline(transaction=False) as pipeline:
            for slot in range(SLOTS):  # it has those that have keys already
                pipeline.execute_command("CLUSTER", "ADDSLOTS", slot)
            pipeline.execute(raise_on_error=False)
        say("3. the settings name the cluster")
        nodes = [old]
        for _ in range(5):  # named already: a process that starts asks those that answer
            nodes.append(Node(folder))
            stack.callback(nodes[-1].kill)
        cluster = ValkeyCluster(nodes)
        _change(offhook, redis_url=cluster.url, rq_url=server.connection_url)
        _second_receiver(offhook)
        offhook.supervisor = offhook.start_supervisor()
        say("4. more nodes")
        _add_nodes(cluster)
        before = load.outcome.count
        wait_until(lambda: load.outcome.count >= before + 400, "events are accepted")
        say("   and its first node fails")
        cluster.fail_over(old)
        before = load.outcome.count
        wait_until(lambda: load.outcome.count >= before + 400, "events are accepted")
        load.stop()
        offhook.wait_for_all(load.outcome, ["fast", "flaky"], 120)
        for handler in ("fast", "flaky"):
            audit(load.outcome, offhook.delivered(handler), repeats=True)
        say(
            f"{load.outcome.count} events accepted, {load.outcome.refused} refused, none lost, "
            f"none out of order, {len(list(jobs.scan_iter('rq:job:*')))} jobs kept"
        )
        return 1 if load.outcome.refused else 0


if __name__ == "__main__":
    sys.exit(main())
