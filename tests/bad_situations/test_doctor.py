"""What an integrator reads in `offhook doctor` about each thing that can be wrong."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rq import Worker
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect
from offhook.inbox import keys
from offhook.inbox.apart import move_apart
from offhook.inbox.leases import Leases
from offhook.operations.processes import Process, report
from offhook.operations.running_files import loaded_now
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.healthy import CRM, LOCAL, Scene, complaints, healthy
from tests.offhook_cli.conftest import Offhook


@pytest.fixture
def scene(tmp_path: Path, redis_url: str, configure: Configure) -> Iterator[Scene]:
    with healthy(tmp_path, redis_url, configure) as made:
        yield made


Break = Callable[[Scene], None]

# Each changes one thing.


def _broken_setting(scene: Scene) -> None:
    scene.again(CRM, partition=4)


def _broken_plugin(scene: Scene) -> None:
    (scene.folder / "doctors_plugin.py").write_text("1 / 0\n")
    scene.again(f'{CRM}[handlers.mine]\nuse = "doctors_plugin:Mine"\n')
    scene.redis.set(keys.serving(0), "here/1/x")


def _missing_file(scene: Scene) -> None:
    scene.again(f'{CRM}[lookups.staff]\nuse = "csv"\noptions.path = "staff.csv"\n')


def _no_handler(scene: Scene) -> None:
    scene.again("")


def _readable_configuration(scene: Scene) -> None:
    (scene.folder / "offhook.toml").chmod(0o644)


def _writable_configuration(scene: Scene) -> None:
    (scene.folder / "offhook.toml").chmod(0o602)


def _readable_secret(scene: Scene) -> None:
    (scene.folder / "pbx-token").write_text("a token of the PBX")
    (scene.folder / "pbx-token").chmod(0o644)
    scene.again(f'{CRM}[pbx.main]\nhost = "https://pbx.example.com"\ntoken_file = "pbx-token"\n')


def _evicting(scene: Scene) -> None:
    scene.redis.config_set("maxmemory-policy", "allkeys-lru")


def _replica(scene: Scene) -> None:
    scene.redis.replicaof("127.0.0.1", "1")


def _volatile(scene: Scene) -> None:
    scene.redis.config_set("appendonly", "no")


def _no_disk_to_confirm(scene: Scene) -> None:
    scene.redis.config_set("appendonly", "no")
    scene.again(CRM, durability="disk")


def _unsynced(scene: Scene) -> None:
    scene.redis.config_set("appendfsync", "no")


def _no_replica(scene: Scene) -> None:
    scene.again(CRM, durability="replica", replicas=2)


def _unlimited(scene: Scene) -> None:
    scene.redis.config_set("maxmemory", 0)


def _full(scene: Scene) -> None:
    used: Any = scene.redis.info("memory")
    scene.redis.config_set("maxmemory", int(used["used_memory"] / 0.95))


def _unserved(scene: Scene) -> None:
    scene.redis.delete(keys.serving(0))


def _other_partitions(scene: Scene) -> None:
    scene.redis.set(keys.serving(1), "here/1/x")
    scene.redis.hset(keys.PARTITIONS, mapping={"current": 2, "epoch": 1})


def _nearly_too_many(scene: Scene) -> None:
    scene.append(950)
    scene.again(CRM, max_events=1000)


def _refused(scene: Scene) -> None:
    scene.redis.xadd(keys.quarantine(), {"code": "missing_call_id"})


def _turned_away(scene: Scene) -> None:
    scene.redis.hset(keys.refused(), "wrong_token", 7)


def _no_workers(scene: Scene) -> None:
    scene.redis.delete("rq:workers", *scene.redis.keys("rq:workers:*"))


def _no_scheduler(scene: Scene) -> None:
    scene.redis.delete(keys.SCHEDULER)


def _changed_since(scene: Scene) -> None:
    report(scene.redis, "here/1", Process(loaded_now(load_settings())))
    scene.again(CRM, partitions=1, settle=4)


def _behind(scene: Scene) -> None:
    scene.append(1001)


def _failing(scene: Scene) -> None:
    scene.redis.hset(keys.parked(0), "crm main/call-1", event().id)


def _circuit(scene: Scene) -> None:
    async def run() -> None:
        async with connect(load_settings().redis_url) as client:
            await Leases(client, 1, "", 1).note_circuit("crm", 60)

    asyncio.run(run())


def _apart(scene: Scene) -> None:
    move_apart(scene.redis, "crm", "blocks")
    for pool in ("", "crm"):
        scene.redis.set(keys.serving(0, pool), "here/1/x")
    worker = Worker(
        [queues.queue("offhook.serve.crm", scene.redis)],
        name="apart",
        connection=scene.redis,
        serializer=JSONSerializer,
    )
    worker.register_birth()  # type: ignore[no-untyped-call]


def _dead(scene: Scene) -> None:
    queues.bury(scene.redis, "crm", event(), attempt=1, error="no", trace="")


def _abandoned(scene: Scene) -> None:
    queues.bury(scene.redis, "gone", event(), attempt=1, error="no", trace="")


def _leftover(scene: Scene) -> None:
    scene.redis.hset(keys.known(0), "gone", "0")


def _closed(scene: Scene) -> None:
    scene.again(CRM, public_url="http://127.0.0.1:1")


def _damaged_revocations(scene: Scene) -> None:
    (scene.folder / "revoked.json").write_text("[]")


def _waiting(scene: Scene) -> None:
    (scene.folder / "journal" / "1.journal").write_bytes(b"x" * 2_000_000)


def _unusable_folder(scene: Scene) -> None:
    scene.again(CRM, journal="x" * 300)


def _damaged(scene: Scene) -> None:
    (scene.folder / "journal" / "1.damaged").write_bytes(b"x")


def _full_disk(scene: Scene) -> None:
    scene.again(CRM, journal_size=10**18)


def _insecure(scene: Scene) -> None:
    pbx = '[pbx.main]\nhost = "https://pbx.example.com"\ntoken = "x"\ninsecure = true\n'
    scene.again(CRM + pbx)


REPLICAS = (
    "has 0 of the 2 replicas that must have an event (replicas): every event goes to the journal "
    "until it has them all"
)
# `HERE` is the folder of the configuration.
SITUATIONS: dict[Break, str] = {
    _broken_setting: (
        "Configuration: fail partition: there is no such setting; did you mean 'partitions'?"
    ),
    _broken_plugin: (
        "Configuration: fail handlers.mine.use: 'doctors_plugin:Mine' cannot be loaded: "
        "ZeroDivisionError: division by zero (HERE/doctors_plugin.py, line 1)"
    ),
    _missing_file: (
        "Configuration: warn lookups.staff: HERE/staff.csv cannot be read: "
        "No such file or directory"
    ),
    _no_handler: (
        "Configuration: warn no handler is configured: events are kept but not delivered; "
        "add a [handlers.NAME] table to HERE/offhook.toml"
    ),
    _readable_configuration: (
        "Configuration: warn HERE/offhook.toml can be read by every user of this machine, and has "
        "secrets (secret): chmod o-r HERE/offhook.toml"
    ),
    _writable_configuration: (
        "Configuration: fail HERE/offhook.toml can be changed by every user of this machine, who "
        "could have Offhook run their code: chmod o-w HERE/offhook.toml"
    ),
    _readable_secret: (
        "Configuration: warn HERE/pbx-token can be read by every user of this machine, and has "
        "secrets (pbx.main.token_file): chmod o-r HERE/pbx-token"
    ),
    _evicting: (
        "Redis: fail deletes events when its memory is full (maxmemory-policy allkeys-lru): "
        "set maxmemory-policy to noeviction"
    ),
    _replica: (
        "Redis: fail Redis at URL is a read-only replica: set redis_url to its primary, "
        "127.0.0.1:1, or to the Sentinels that know the primary"
    ),
    _volatile: (
        "Redis: warn loses events when it restarts (appendonly no): set appendonly to yes"
    ),
    _no_disk_to_confirm: (
        'Redis: fail has no append-only file to confirm events (durability "disk"): every event '
        "goes to the journal; set appendonly to yes"
    ),
    _unsynced: (
        "Redis: warn loses events when its machine fails (appendfsync no): "
        "set appendfsync to always, or to everysec if the last second may be lost"
    ),
    _no_replica: f"Redis: fail {REPLICAS}",
    _unlimited: (
        "Redis: warn uses N MB, and its maxmemory is not set: if the machine runs out of memory, "
        "the system kills the server; set maxmemory, so that it refuses events before, and the "
        "journal takes them"
    ),
    _full: (
        "Redis: fail uses N% of its maxmemory (N MB of N MB): the inbox is full, and events wait "
        "in the journal; raise maxmemory, or see with `offhook status` which handler is behind"
    ),
    _unserved: (
        "Inbox: fail offhook.serve does not serve partition 0: see the log of `offhook work`"
    ),
    _other_partitions: (
        "Inbox: warn receivers use 2 partitions, and the configuration says 1: restart the "
        "receivers, the one with the right configuration last"
    ),
    _nearly_too_many: (
        "Inbox: warn holds 950 of at most 1,000 events (max_events): the oldest are deleted, "
        "even if a handler has not had them; raise max_events, or lower keep_days"
    ),
    _refused: (
        "Inbox: warn 1 callback was refused: `offhook quarantine list` says why, "
        "`clear` deletes them"
    ),
    _turned_away: (
        "Inbox: warn refused: 7 callbacks with a wrong token: was the secret changed, "
        "or a URL revoked?"
    ),
    _no_workers: "Workers: fail no workers run: start `offhook work`",
    _no_scheduler: (
        "Workers: fail no scheduler: periodic jobs do not run; start `offhook work`"
    ),
    _changed_since: (
        "Workers: warn offhook.toml has changed since `offhook work` loaded its files (TIME): "
        "`offhook reload` applies what is new"
    ),
    _behind: (
        "Handlers: warn crm is 1,001 events behind: `offhook status --watch` shows whether it "
        "catches up; is its target slow?"
    ),
    _failing: (
        "Handlers: warn 1 call waits for a redelivery to crm: "
        "`offhook tail --handler crm` shows why they fail"
    ),
    _circuit: (
        "Handlers: warn crm's target is down: its circuit is open, the next probe is in N s; "
        "its events wait, `offhook tail` shows its errors"
    ),
    _apart: (
        "Handlers: warn crm blocks: for now it runs in a process of its own; "
        "the log of `offhook work` has its stack"
    ),
    _dead: "Handlers: warn crm has dead letters: `offhook dead list` says why",
    _abandoned: (
        "Handlers: warn gone is no longer configured and has 1 dead letter: `offhook dead list`"
    ),
    _leftover: (
        "Handlers: warn gone is no longer configured but still has a position, which delays "
        "nothing: `offhook forget gone` deletes it"
    ),
    _closed: (
        "Receiver: fail public_url: no answer from 127.0.0.1:1 (connection refused): is "
        "`offhook serve` running, and does its proxy lead there?"
    ),
    _damaged_revocations: (
        "Receiver: fail revoked: HERE/revoked.json is damaged: it must map URLs to numbers"
    ),
    _waiting: (
        "Receiver: warn 2.0 MB of events wait in HERE/journal (journal): they are delivered when "
        "Redis takes events and `offhook serve` runs here"
    ),
    _unusable_folder: (
        f"Receiver: warn HERE/{'x' * 300} (journal) cannot be read: File name too long; "
        "correct journal"
    ),
    _damaged: (
        "Receiver: warn HERE/journal has damaged batches of events: its files *.damaged were kept "
        "aside; is the disk sound?"
    ),
    _full_disk: (
        "Receiver: warn HERE/journal has N GB of free disk space, less than journal_size "
        "(1000000000.0 GB): free some, or lower journal_size"
    ),
    _insecure: (
        "PBX: warn pbx.main: any server that answers at https://pbx.example.com is trusted "
        "(insecure), and gets the credentials: set ca_file instead"
    ),
}  # fmt: skip
# What else these change.
ALSO: dict[Break, list[str]] = {
    _broken_setting: ["Everything else: warn not examined, because the configuration has errors: "
                      "correct them first"],
    _no_disk_to_confirm: [SITUATIONS[_volatile]],
}  # fmt: skip


def plain(line: str, folder: Path) -> str:
    """Replace what differs from one run to the next."""
    line = re.sub(r"redis://[\d.:]+", "URL", line.replace(str(folder), "HERE"))
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", line)
    line = re.sub(r"\d+%", "N%", re.sub(r"[\d.]+ (?=s;|GB of free)", "N ", line))
    return re.sub(r"[\d.]+ MB(?! of events)", "N MB", line)


@pytest.mark.parametrize("breaks", SITUATIONS, ids=lambda each: each.__name__.strip("_"))
def test_what_is_broken_has_its_line(breaks: Break, scene: Scene, offhook: Offhook) -> None:
    breaks(scene)
    told = [plain(each, scene.folder) for each in complaints(offhook)]
    assert SITUATIONS[breaks] in told
    told.remove(SITUATIONS[breaks])
    local = [] if breaks is _broken_setting else [LOCAL]
    assert told == [*ALSO.get(breaks, []), *local]
