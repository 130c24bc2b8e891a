"""An installation on ten hosts with a cluster: kill any of them, cut any off, move slots.

    python -m tests.chaos.cluster

Three primaries, three replicas, two receivers behind nginx and two hosts with workers, each in a
network namespace. While callers make callbacks, one thing after the other fails. In the end, all
that was answered 200 must have been delivered, each call in order, and no partition by two hosts at
once.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx
import redis

from offhook.connection import connect_rq
from offhook.inbox import keys
from offhook.redis_servers.slots import slot_of_key
from tests.chaos.cluster_audit import all_delivered, audit
from tests.chaos.hosts import HERE, Host, check_rights, hosts
from tests.chaos.load import Callers
from tests.conftest import SECRET
from tests.installation import OFFHOOK, ROOT, wait_until
from tests.receiver.behind_nginx import nginx
from tests.valkey_cluster import Node, ValkeyCluster

HANDLERS = """
[handlers.fast]
use = "tests.recorders:record_process"
[handlers.flaky]
use = "tests.recorders:park_every_tenth"
retry = [1, 1]
"""
PARTITIONS, MORE = 12, 20
_PAUSE = 5.0  # seconds
PORT = 8080


class Scene:
    """The installation, while it runs."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        names = [f"{kind}{n}" for kind in ("primary", "replica") for n in range(3)]
        made = stack.enter_context(hosts(*names, "in0", "in1", "work0", "work1"))
        self.late: list[str] = []  # what took longer than it may
        self.nodes: dict[Node, Host] = {}
        for host in made[:6]:
            node = Node(folder, host.address, 3000, host.prefix)
            stack.callback(node.kill)
            self.nodes[node] = host
        self.cluster = ValkeyCluster.of(list(self.nodes))
        jobs = Node(folder, HERE, cluster=False)
        stack.callback(jobs.kill)
        self.receivers, self.workers = made[6:8], made[8:10]
        self.values: dict[str, object] = {
            "secret": SECRET,
            "redis_url": self.cluster.url,
            "rq_url": f"redis://{HERE}:{jobs.port}/0",
            "durability": "replica",
            "replicas": 1,
            "partitions": PARTITIONS,
            "url_rate": 1_000_000,
            "source_rate": 1_000_000,
            "proxies": [f"{HERE}/32"],
        }
        self.folder = folder
        self.output = folder / "delivered"
        self.output.mkdir()
        for host in made[6:]:
            (folder / host.name).mkdir()
            self.start(host)
        web = folder / "nginx"
        web.mkdir()
        at = [f"{host.address}:{PORT}" for host in self.receivers]
        self.port = stack.enter_context(nginx(web, at, 60)).port
        self.client: redis.Redis = stack.enter_context(connect_rq(self.cluster.url, tries=20))

    def start(self, host: Host) -> None:
        """Start what belongs on a host, with the settings as they are now."""
        folder = self.folder / host.name
        config = folder / "offhook.toml"
        config.write_text("".join(f"{k} = {v!r}\n" for k, v in self.values.items()) + HANDLERS)
        environment = {
            "PATH": "/usr/bin:/bin",
            "OFFHOOK_CONFIG": str(config),
            "PYTHONPATH": str(ROOT),
            "RECORDINGS": str(self.output),
        }
        serve = ["serve", "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104 - in a namespace
        what = serve if host in self.receivers else ["work"]
        host.start([OFFHOOK, *what], folder / "log", environment)

    def restart(self, host: Host) -> None:
        host.kill(signal.SIGTERM)
        host.wait()
        self.start(host)

    def served_by(self) -> dict[int, str]:
        """Which process has the lease of each partition of the shared pool, by its name."""
        found = {}
        for number in range(int(str(self.values["partitions"]))):
            holder = self.client.get(keys.serving(number))
            if isinstance(holder, bytes):
                found[number] = holder.decode()
        return found

    def pids(self, host: Host) -> set[str]:
        said = subprocess.run(
            ["ip", "netns", "pids", host.name], capture_output=True, text=True, check=True
        )
        return {*said.stdout.split()}

    def share_of(self, host: Host) -> int:
        """How many partitions a host serves."""
        pids = self.pids(host)
        return sum(holder.split("/")[1] in pids for holder in self.served_by().values())

    def is_whole(self) -> bool:
        """Whether every node and receiver does its part, and no event waits in a journal.

        Calls stay in order through one fault after the other: while a receiver restarts and Redis
        is away, too, two of them have events of a call in their journals.
        """
        if not all(map(_takes_directly, self.receivers)):
            return False
        states = [str(node.said("CLUSTER", "INFO")) for node in self.nodes]
        if not all("cluster_state:ok" in each for each in states):
            return False
        self.cluster.wait_for_replicas()
        journals = [self.folder.glob(f"{host.name}/journal/*") for host in self.receivers]
        return not any(path.stat().st_size for some in journals for path in some)


def _timed(scene: Scene, what: str, condition: Callable[[], bool], most: float) -> None:
    began = before = time.monotonic()
    paused = 0.0  # while the machine gave this process no time: all others had none, either
    while not condition():
        time.sleep(0.05)
        now = time.monotonic()
        paused += now - before if now - before > _PAUSE else 0
        before = now
        if now - began - paused > 60:
            raise AssertionError(f"not within 60 s: {what}")
    took = time.monotonic() - began - paused
    print(f"  {what}: {took:.1f} s", flush=True)
    if took > most:
        scene.late.append(f"{what} only after {took:.1f} s")


def _primary(scene: Scene) -> Node:
    """The node that has the slot of the first partition."""
    return scene.cluster.primary_of(slot_of_key(keys.inbox(0)))


def _taken_over(scene: Scene, failed: Node) -> bool:
    return _primary(scene) is not failed


def kill_primary(scene: Scene) -> None:
    failed = _primary(scene)
    failed.kill(signal.SIGKILL)
    _timed(scene, "its replica has taken over", lambda: _taken_over(scene, failed), 30)
    failed.start()


def cut_off_primary(scene: Scene) -> None:
    failed = _primary(scene)
    scene.nodes[failed].cut_off()
    failed.stopped = True
    try:
        _timed(scene, "its replica has taken over", lambda: _taken_over(scene, failed), 30)
    finally:
        scene.nodes[failed].connect()
        failed.stopped = False


def kill_replica(scene: Scene) -> None:
    failed = next(node for node in scene.nodes if not node.is_primary())
    failed.kill(signal.SIGKILL)
    time.sleep(3)
    failed.start()


def cut_off_replica(scene: Scene) -> None:
    failed = next(node for node in scene.nodes if not node.is_primary())
    scene.nodes[failed].cut_off()
    time.sleep(5)
    scene.nodes[failed].connect()


def kill_receiver(scene: Scene) -> None:
    scene.receivers[0].kill()
    scene.receivers[0].wait()
    time.sleep(3)
    scene.start(scene.receivers[0])


def cut_off_receiver(scene: Scene) -> None:
    scene.receivers[0].cut_off()
    time.sleep(5)
    scene.receivers[0].connect()


def _replaced(scene: Scene, gone: set[str]) -> None:
    def others_serve() -> bool:
        served = scene.served_by()
        return len(served) == scene.values["partitions"] and not any(
            holder.split("/")[1] in gone for holder in served.values()
        )

    _timed(scene, "the other host serves all partitions", others_serve, 10)


def kill_workers(scene: Scene) -> None:
    host = scene.workers[0]
    gone = scene.pids(host)
    host.kill()
    host.wait()
    _replaced(scene, gone)
    scene.start(host)
    _has_share(scene, host)


def _has_share(scene: Scene, host: Host) -> None:
    wait_until(lambda: len(scene.pids(host)) > 3, "the host has started", 60)
    share = int(str(scene.values["partitions"])) // 2
    _timed(scene, "the new host has its share", lambda: scene.share_of(host) >= share - 1, 10)


def cut_off_workers(scene: Scene) -> None:
    host = scene.workers[1]
    gone = scene.pids(host)
    host.cut_off()
    try:
        _replaced(scene, gone)
        time.sleep(3)
    finally:
        host.connect()
    _has_share(scene, host)


def move_slots(scene: Scene) -> None:
    """Move the slot of every partition to the next primary, as one step."""
    primaries = [node for node in scene.nodes if node.is_primary()]
    for number in range(int(str(scene.values["partitions"]))):
        slot = slot_of_key(keys.inbox(number))
        source = scene.cluster.primary_of(slot)
        scene.cluster.migrate(slot, primaries[(primaries.index(source) + 1) % 3])


def move_slot_key_by_key(scene: Scene) -> None:
    slot = slot_of_key(keys.inbox(1))
    source = scene.cluster.primary_of(slot)
    target = next(node for node in scene.nodes if node.is_primary() and node is not source)
    moving = scene.cluster.begin_moving(slot, target)
    for _ in range(3):
        moving.move(5)
        time.sleep(1)
    moving.end()


def _takes_directly(host: Host) -> bool:
    with suppress(httpx.HTTPError):
        health = httpx.get(f"http://{host.address}:{PORT}/health/ready", timeout=2).json()
        return health["status"] == "ready" and "redis:" not in str(health["notes"])
    return False


def raise_partitions(scene: Scene) -> None:
    scene.values["partitions"] = MORE
    for host in scene.receivers:
        scene.restart(host)
        wait_until(partial(_takes_directly, host), "the receiver takes callbacks", 60)
    _timed(scene, "all partitions are served", lambda: len(scene.served_by()) == MORE, 15)


FAULTS: tuple[Callable[[Scene], None], ...] = (
    kill_primary,
    move_slots,
    kill_workers,
    cut_off_primary,
    cut_off_workers,
    kill_receiver,
    kill_replica,
    move_slot_key_by_key,
    raise_partitions,
    cut_off_receiver,
    cut_off_replica,
    move_slots,
)


def main() -> int:
    check_rights()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scene = Scene(Path(folder), stack)
        wait_until(lambda: len(scene.served_by()) == PARTITIONS, "all partitions are served", 60)
        callers = Callers(scene.port)
        callers.start()
        try:
            wait_until(lambda: len(callers.accepted) > 20, "events are accepted", 30)
            for fault in FAULTS:
                before = len(callers.accepted), callers.sent
                print(fault.__name__, flush=True)
                fault(scene)
                wait_until(scene.is_whole, "all is well again", 300)
                time.sleep(1)
                accepted, sent = len(callers.accepted) - before[0], callers.sent - before[1]
                print(f"  {accepted} of {sent} callbacks accepted", flush=True)
        except AssertionError as error:
            failures.append(str(error))
        finally:
            callers.stop()
            callers.join()
        done = callers.accepted
        with suppress(AssertionError):  # the audit says what is missing
            wait_until(lambda: all_delivered(scene.output, done), "all is delivered", 120)
        failures += audit(scene.output, scene.client, MORE, done) + scene.late
        if failures:
            for log in sorted(Path(folder).glob("*/log")):
                print(f"== {log.parent.name}\n{log.read_text()[-2000:]}")
    print("\n".join(failures) or "nothing was lost, and all was in order")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
