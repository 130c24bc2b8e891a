"""The inbox in a cluster of three primaries and replicas, and RQ's jobs on another server."""

import subprocess
import threading
from collections.abc import Iterator

import pytest
import redis

from offhook.inbox import keys
from offhook.redis_servers.slots import slot_of_key
from tests.end_to_end.test_two_servers import FAST, HANDLERS, dead, said, valkey
from tests.installation import OFFHOOK, Installation, Outcome, audit, wait_until
from tests.valkey_cluster import ValkeyCluster

PARTITIONS = 8


class Load:
    """Callbacks until it is stopped, in the background."""

    def __init__(self, offhook: Installation) -> None:
        self._offhook = offhook
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.outcome = Outcome()
        self._thread.start()

    def stop(self) -> Outcome:
        self._stop.set()
        self._thread.join()
        return self.outcome

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.1):
            loaded = self._offhook.load(80, connections=8, name=f"load-{number}")
            self.outcome.accepted |= loaded.accepted
            self.outcome.refused += loaded.refused
            number += 1


@pytest.fixture(scope="module")
def offhook(
    tmp_path_factory: pytest.TempPathFactory, valkey_cluster: ValkeyCluster
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("offhook")
    with (
        valkey(folder / "jobs") as jobs,
        Installation.running(
            folder,
            HANDLERS,
            settle_unanswered=1.0,
            partitions=PARTITIONS,
            redis_url=valkey_cluster.url,
            rq_url=jobs.connection_url,
        ) as running,
    ):
        yield running
        with redis.Redis.from_url(jobs.connection_url, decode_responses=True) as rq:
            assert {key.partition(":")[0] for key in rq.scan_iter()} == {"rq"}
        log = running.log.read_text()
        assert "CROSSSLOT" not in log
        assert "do not hash to the same slot" not in log
        assert "Traceback" not in log


def command(offhook: Installation, *arguments: str) -> str:
    done = subprocess.run(
        [OFFHOOK, *arguments], env=offhook.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_works_with_the_inbox_in_a_cluster(
    offhook: Installation, valkey_cluster: ValkeyCluster
) -> None:
    outcome = offhook.load(200)
    offhook.wait_for_all(outcome, FAST)
    wait_until(lambda: dead(offhook) == 20, "there are dead letters", 60)
    (offhook.output / "it-is-mended").touch()
    command(offhook, "dead", "retry", "--all", "--yes")
    offhook.wait_for_all(outcome, ["mended"])
    for name in FAST:
        audit(outcome, offhook.delivered(name), repeats=True)
    assert dead(offhook) == 0
    _use_every_command(offhook, outcome)
    with_keys = [node for node in valkey_cluster.nodes if node.is_primary() and node.do("DBSIZE")]
    assert len(with_keys) == 3


def _use_every_command(offhook: Installation, outcome: Outcome) -> None:
    """Use the commands that read or change what a partition has."""
    call = next(iter(outcome.accepted))
    assert "fast" in said(offhook, "status")
    wait_until(lambda: call in command(offhook, "calls"), "it is listed")
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
    diagnosis = said(offhook, "doctor")
    assert "serves all slots on 3 primaries" in diagnosis
    assert "each primary has a replica" in diagnosis
    assert diagnosis.count("(appendonly yes, appendfsync everysec)") == 4  # and the server of RQ


def test_nothing_is_lost_while_a_primary_dies_and_slots_move(
    offhook: Installation, valkey_cluster: ValkeyCluster
) -> None:
    slots = [slot_of_key(keys.inbox(partition)) for partition in range(PARTITIONS)]
    load = Load(offhook)
    try:
        wait_until(lambda: load.outcome.count > 0, "events are accepted")
        killed = valkey_cluster.primary_of(slots[0])
        valkey_cluster.fail_over(killed)
        killed.start()
        wait_until(killed.is_replica, "it knows that it was replaced")
        first, second, *_ = [node for node in valkey_cluster.nodes if node.is_primary()]
        for slot in slots[:4]:
            source = valkey_cluster.primary_of(slot)
            valkey_cluster.migrate(slot, second if source is first else first)
        source = valkey_cluster.primary_of(slots[4])
        moving = valkey_cluster.begin_moving(slots[4], second if source is first else first)
        before = load.outcome.count
        moving.move(1)
        wait_until(lambda: load.outcome.count >= before + 160, "events are accepted meanwhile")
        moving.end()
    finally:
        outcome = load.stop()
    assert outcome.refused == 0
    offhook.wait_for_all(outcome, FAST)
    for name in FAST:
        audit(outcome, offhook.delivered(name), repeats=True)
