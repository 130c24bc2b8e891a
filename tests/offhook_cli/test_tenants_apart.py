"""Every command, with tenants that have equal numbers, CallIDs and handlers' names.

The commands are those that there are, so none can be forgotten: a new one must be in `CASES`, or in
`NOT_OF_TENANTS` with a reason. Run for one tenant, a command shows nothing of another and changes
nothing of it. One of the neighbors is hostile: its names and texts look like those of others.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import encode
from msgspec.structs import replace
from redis import Redis

from offhook import CallEvent, ExtensionSettings, Party, queues
from offhook.connection import opened
from offhook.event import EventType
from offhook.extensions import Extensions
from offhook.inbox import feed, keys
from offhook.inbox.paused import pause_handler
from offhook.operations import tenant_removal
from offhook.operations.wall_links import WallLink
from offhook.plugins import plug_handler
from offhook.settings import Settings, load_settings
from offhook_cli import COMMANDS, load
from tests.conftest import Configure
from tests.events import batch_of
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_cli.conftest import Offhook
from tests.workers.serving.bench import Bench, until

NUMBER = "+442079460100"
# Extension and CallID of each; both CallIDs of `evil` name another tenant's call.
TENANTS = {
    "": ("0003*213", "c1"),
    "acme": ("0003*210", "c1"),
    "beta": ("0003*211", "c1"),
    "evil": ("0003*212", "acme:main/c1"),
}
TARGETS = ("acme", "evil", "")
SINCE = "2020-01-01"
QUARANTINED = "1778000000000-0"
WALL = "ab" * 32  # the hash of a wall link of each

NOT_OF_TENANTS = {
    "demo": "runs an installation of its own",
    "dev": "runs what is configured",
    "init": "writes a configuration",
    "tenants list": "the operator's list of all",
    "tenants add": "writes a file",
    "url print": "of one extension, whosever it is",
    "url revoke": "of one extension, whosever it is",
    "serve": "runs for all",
    "work": "runs for all",
    "reload": "applies one version to all",
    "console": "runs for all",
    "console token": "writes the configuration of a person",
    "console user": "writes the configuration of a person",
    "sandbox start": "a PBX, not ours",
    "sandbox call": "a PBX, not ours",
    "sandbox load": "a PBX, not ours",
    "sandbox tally": "a PBX, not ours",
    "simulate": "a PBX, not ours",
    "handlers show": "about an installed plugin",
    "handlers new": "writes a project",
    "doctor": "checks the whole installation",
}


@dataclass(frozen=True)
class Case:
    """How to run a command for one tenant.

    Attributes:
        arguments: after the command; see `_words` for what is filled in.
        changes: it changes something of the tenant.
        refused: the exit code if it does nothing for a tenant.
        shows: it shows the tenant's own marker.
    """

    arguments: str = ""
    changes: bool = False
    refused: int | None = None
    shows: bool = False


NO_ACCESS = Case("{extension}", refused=2)
CASES = {
    "setup extensions": Case("{extension} --label new --handlers crm --yes", changes=True),
    "setup apply": Case("{folder}/{tenant}.toml --prune --yes", changes=True),
    "setup show": Case("--json", shows=True),
    "setup export": Case("-", shows=True),
    "setup check": Case(),
    "tenants show": Case("{tenant}"),
    "tenants remove": Case("{tenant} --yes", changes=True),
    "presence": Case(refused=2),
    "agents": NO_ACCESS,
    "pbx dial": Case("{extension} 0003*211", refused=2),
    "console wall add": Case("Hall", changes=True),
    "console wall list": Case("--json", shows=True),
    "console wall revoke": Case(WALL[:12], changes=True),
    "pbx events list": NO_ACCESS,
    "pbx events create": Case("{extension} --type hangup --url http://127.0.0.1/x", refused=2),
    "pbx events change": Case("{extension} 1 --note x --others", refused=2),
    "pbx events delete": Case("{extension} --all --others --yes", refused=2),
    "handlers": Case("--json"),
    "handlers preview": Case("chat --event hangup", shows=True),
    "handlers pause": Case("crm", changes=True),
    "handlers resume": Case("chat", changes=True),
    "handlers test": Case("crm --wait 0", changes=True),
    "handlers would-get": Case("crm --events raw --of 1h --json"),
    "lookup": Case(f"{NUMBER} --json", shows=True),
    "status": Case("--json"),
    "calls": Case(f"--number {NUMBER} --since {SINCE} --json", shows=True),
    "calls reconcile": Case("--since 1h --dry-run"),
    "missed": Case("--state all --json"),  # it shows no marker: their calls go on
    "calls proof": Case("--json"),
    "call": Case("{call} --json", shows=True),
    "deliveries": Case("--json"),  # it shows no marker: see below
    "dead list": Case("--json", shows=True),
    "dead show": Case("{letter} --json", shows=True),
    "dead retry": Case("--all --yes", changes=True),
    "dead discard": Case("--all --yes", changes=True),
    "replay": Case(f"--handler crm --since {SINCE} --yes", changes=True),
    "forget": Case("gone --yes", changes=True),
    "erase": Case(f"{NUMBER} --yes --json", changes=True),
    "quarantine list": Case("--json", shows=True),
    "quarantine show": Case(f"{QUARANTINED} --json", shows=True),
    "quarantine retry": Case(f"{QUARANTINED} --yes", changes=True),
    "quarantine clear": Case("--yes", changes=True),
}
# These run until they are stopped, and have a test of their own.
ENDLESS = {"tail": "test_tail_follows_one_tenant"}


def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each command with its path."""
    subcommands = getattr(command, "commands", {})
    if not subcommands or command.invoke_without_command:
        yield path, command
    for name, each in subcommands.items():
        yield from leaves(each, f"{path} {name}")


ALL = dict(each for name in COMMANDS for each in leaves(load(name), name))


def test_every_command_is_tried_or_has_a_reason() -> None:
    assert ALL.keys() == CASES.keys() | NOT_OF_TENANTS.keys() | ENDLESS.keys()
    assert len(ALL) == len(CASES) + len(NOT_OF_TENANTS) + len(ENDLESS)
    assert set(ENDLESS.values()) <= globals().keys()
    optional = {
        name for name, each in ALL.items() if any("--tenant" in it.opts for it in each.params)
    }
    optional.remove("console user")  # it goes into the table that is printed
    assert optional == (CASES.keys() | ENDLESS.keys()) - {"tenants show", "tenants remove"}


def marker(tenant: str) -> str:
    return f"marker-of-{tenant or 'operator'}"


PLUGINS = """
[handlers.crm]
use = "file"
events = ["raw", "calls"]
options.path = "{folder}/{marker}.jsonl"
[handlers.chat]
use = "notify"
options.urls = ["json://127.0.0.1:9"]
options.body = "{marker}"
[lookups.book]
use = "csv"
options.path = "{folder}/{marker}.csv"
"""


def configure_all(configure: Configure, pbx: Sandbox, folder: Path) -> None:
    """The same handlers and lookups for the operator and for each tenant."""
    (folder / "tenants").mkdir(exist_ok=True)
    for tenant, (extension, _) in TENANTS.items():
        plugins = PLUGINS.format(folder=folder, marker=marker(tenant))
        (folder / f"{marker(tenant)}.csv").write_text(f"number,name\n{NUMBER},{marker(tenant)}\n")
        (folder / f"{tenant}.toml").write_text(f'[main."{extension}"]\nlabel = "applied"\n')
        if tenant:
            claims = f'extensions = ["main/{extension}"]\n'
            (folder / "tenants" / f"{tenant}.toml").write_text(claims + plugins)
        else:
            access = f"[pbx.main]\nhost = '{pbx.url}'\ntoken = 'sandbox-token'\n"
            access += "insecure = true\nzone = 'UTC'\n"
            configure(access + plugins, settle=0.1, settle_unanswered=0.1, region="GB")


class World:
    """An installation with the same things of each tenant, which can be made anew."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.redis = Redis.from_url(url)
        asyncio.run(self._make(load_settings()))
        self._saved = {key: self.redis.dump(key) for key in self.redis.scan_iter()}
        self._files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def restore(self) -> None:
        """Make all as it was."""
        self.redis.flushall()
        with self.redis.pipeline(transaction=False) as pipeline:
            for key, value in self._saved.items():
                assert value is not None
                pipeline.restore(key, 0, value, replace=True)
            pipeline.execute()
        for path, content in self._files.items():
            path.write_bytes(content)

    async def _make(self, settings: Settings) -> None:
        bench = Bench(self.url)
        bench.settings = settings
        bench.handlers = [plug_handler(*each) for each in settings.all_handlers.items()]
        events = [each for tenant in TENANTS for each in _events(tenant)]
        await bench.append(*events)
        async with bench.serving():
            await until(lambda: not bench.unfinished(), seconds=60)
        bench.redis.close()
        async with opened(settings) as (inbox, rq):
            stored = {
                ("main", extension): ExtensionSettings(label=marker(tenant))
                for tenant, (extension, _) in TENANTS.items()
            }
            await Extensions(inbox.redis).change(stored)
            for tenant in TENANTS:
                prefix = f"{tenant}/" if tenant else ""
                await inbox.register({f"{prefix}gone": "earliest"}, tenant)
                died, *_ = _events(tenant)
                await pause_handler(inbox.redis, f"{prefix}chat", "ruth")
                queues.bury(rq, f"{prefix}crm", died, attempt=1, error=marker(tenant), trace="")
                queues.call_serve(rq, f"{prefix}code", 1)
                await inbox.redis.hset(keys.REGISTERED, f"main/{tenant}", "1 0")
                kept = _refused(tenant)
                await inbox.redis.xadd(keys.quarantine(tenant), kept, id=QUARANTINED)  # type: ignore[arg-type]
                await inbox.redis.set(keys.memory(f"{prefix}crm", NUMBER), marker(tenant))
                wall = WallLink(id=WALL[:12], name=marker(tenant), by="x", made=datetime.now(UTC))
                await inbox.redis.hset(keys.wall_links(tenant), WALL, encode(wall))
                await inbox.redis.set(keys.lookup_name(f"{prefix}book", NUMBER), marker(tenant))

    def of(self, tenant: str) -> dict[str, Any]:
        """All that belongs to a tenant, read with no help of what the commands use."""
        client = self.redis
        prefix = f"{tenant}/" if tenant else ""
        call = f"{tenant}:main/{TENANTS[tenant][1]}" if tenant else f"main/{TENANTS[tenant][1]}"
        hashes = (keys.known, keys.behind, keys.replays)
        extension = f"main/{TENANTS[tenant][0]}"
        found: dict[str, Any] = {
            "events": client.xrange(keys.inbox(0, tenant)),
            "listed": client.zrange(keys.calls(0, tenant), 0, -1),
            "call": client.get(keys.call(0, call)),
            "read": client.hget(keys.read(0), tenant),
            "folded": client.hget(keys.folded(0), tenant),
            "walls": client.hgetall(keys.wall_links(tenant)),
            "refused": client.xrange(keys.quarantine(tenant)),
            "paused": [client.hget(keys.PAUSED, prefix + name) for name in ("crm", "chat")],
            "parked": [
                each
                for each in client.hscan_iter(keys.parked(0))
                if each[0].decode().startswith(f"{prefix}crm ")
            ],
            "memory": client.get(keys.memory(f"{prefix}crm", NUMBER)),
            "name": client.get(keys.lookup_name(f"{prefix}book", NUMBER)),
            "settings": client.hget(keys.EXTENSIONS, extension),
            "dead": queues.dead_registry(client, f"{prefix}crm").get_job_ids(cleanup=False),
            "lane": client.lrange(keys.lane(0, f"{prefix}crm", call), 0, -1),
            "file": (self.folder / f"{marker(tenant)}.jsonl").read_text(),
        }
        return found | {make.__name__: client.hgetall(make(0, tenant)) for make in hashes}


def _events(tenant: str) -> list[CallEvent]:
    extension, call_id = TENANTS[tenant]
    return [
        CallEvent(
            id=f"{number:032x}",  # equal, too
            pbx="main",
            extension=extension,
            type=type_,
            call_id=call_id,
            direction="in",
            caller=Party(number=NUMBER, name=marker(tenant)),
            called=Party(extension=extension),
            status="CALLING",
            received=datetime.now(UTC),
            parameters={"n": str(number), "text": marker(tenant)},
            tenant=tenant,
        )
        for number, type_ in enumerate((EventType.DIAL_IN, EventType.HANGUP), 1)
    ]


def _refused(tenant: str) -> dict[str, str | bytes]:
    query = f"CallID=late&CallFlow=IN&CallerIDNum=%2B442079460100&text={marker(tenant)}"
    return {
        "code": "too_many_parameters",
        "message": marker(tenant),
        "pbx": "main",
        "extension": TENANTS[tenant][0],
        "event_type": "dial-in",
        "method": "GET",
        "content_type": "",
        "query": query.encode(),
        "body": b"",
        "received": "2026-05-01T12:00:00+00:00",
    }


@pytest.fixture
def world(configure: Configure, redis_url: str, tmp_path: Path) -> Iterator[World]:
    with sandbox() as pbx:
        configure_all(configure, pbx, tmp_path)
        made = World(redis_url, tmp_path)
        yield made
        made.redis.close()


def test_a_command_is_about_one_tenant(world: World, offhook: Offhook) -> None:
    """In one test, because the world is made once."""
    for name, case in CASES.items():
        for tenant in TARGETS:
            if not tenant and (case.refused is not None or name.startswith("tenants ")):
                continue
            world.restore()
            before = {each: world.of(each) for each in TENANTS}
            if name == "tenants remove":  # its extensions are removed from the PBX before
                world.redis.hdel(keys.EXTENSIONS, f"main/{TENANTS[tenant][0]}")
            result = offhook(*_words(name, case, tenant))
            about = f"{name} of {tenant!r}: {result.output} {result.exception!r}"
            if case.refused is not None:
                assert result.exit_code == case.refused, about
                assert f"tenant {tenant} has no access of its own" in result.output, about
            else:
                assert result.exit_code in (0, 1), about
                assert not isinstance(result.exception, Exception), about
            said = result.output
            assert not case.shows or marker(tenant) in said, about
            for other in TENANTS.keys() - {tenant}:
                assert marker(other) not in said, about
                after = world.of(other)
                assert {n: after[n] for n in after if after[n] != before[other][n]} == {}, about
            assert (world.of(tenant) != before[tenant]) is case.changes, about


def _words(name: str, case: Case, tenant: str) -> list[str]:
    extension, call_id = TENANTS[tenant]
    handler = f"{tenant}/crm" if tenant else "crm"
    filled = case.arguments.format(
        tenant=tenant,
        extension=extension,
        call=f"main/{call_id}",
        folder=load_settings().journal_folder.parent,
        letter=queues.dead_letter_id(handler, f"{1:032x}"),
    )
    words = [*name.removesuffix(" extensions").split(), *filled.split()]
    return words if not tenant or name.startswith("tenants ") else [*words, "--tenant", tenant]


def test_deliveries_are_of_one_tenant(world: World, offhook: Offhook) -> None:
    world.restore()
    for tenant in TENANTS:
        shown = offhook(*_words("deliveries", CASES["deliveries"], tenant)).output
        assert {each["call"] for each in json.loads(shown)} == {_events(tenant)[0].call}


async def test_tail_follows_one_tenant(world: World) -> None:
    """What `offhook tail` prints is what these yield."""
    got: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
    async with opened(load_settings()) as (inbox, _):
        since = await feed.server_time(inbox.redis)

        async def follow(tenant: str) -> None:
            async for each in feed.watch_events(inbox, tenant, since):
                got[tenant].append(each.tenant)

        async def follow_deliveries(tenant: str) -> None:
            async for attempt in feed.watch_deliveries(inbox.redis, tenant):
                got[tenant].append(attempt["call"])

        tasks = [
            asyncio.create_task(work(tenant))
            for tenant in TENANTS
            for work in (follow, follow_deliveries)
        ]
        while (await inbox.redis.pubsub_numsub(keys.DELIVERIES))[0][1] < len(TENANTS):
            await asyncio.sleep(0.01)
        calls = [_events(tenant)[0].call for tenant in TENANTS]
        await feed.publish(inbox.redis, [{"call": call} for call in calls])
        for tenant in TENANTS:
            one = replace(_events(tenant)[0], id=f"{tenant:0>32}")
            await inbox.append(batch_of(one), 0)
        await until(lambda: all(len(each) == 2 for each in got.values()))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert {tenant: sorted(each) for tenant, each in got.items()} == {
        tenant: sorted([tenant, _events(tenant)[0].call]) for tenant in TENANTS
    }


def test_a_removed_tenant_leaves_nothing(world: World, offhook: Offhook) -> None:
    world.restore()
    for tenant in ("acme", "beta", "evil"):
        world.redis.hdel(keys.EXTENSIONS, f"main/{TENANTS[tenant][0]}")
        assert offhook("tenants", "remove", tenant, "--yes").exit_code == 0
    left: list[str] = []
    for key in world.redis.scan_iter():
        value = f"{key!r} {_content(world.redis, key)!r}"
        left += [value for tenant in ("acme", "beta", "evil") if tenant in value]
    assert left == []
    assert offhook("tenants", "list", "--json").output.strip() == "[]"


def _content(client: Redis, key: bytes) -> Any:
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1),
        b"hash": client.hgetall,
        b"stream": client.xrange,
    }
    return read[client.type(key)](key)  # type: ignore[index]


def test_every_key_of_a_tenant_is_removed_with_it() -> None:
    made = {
        name
        for name, make in vars(keys).items()
        if callable(make) and "tenant" in getattr(make, "__annotations__", {}) and name[0] != "_"
    }
    removed = (
        *tenant_removal.OF_PARTITION,
        *tenant_removal.OF_INSTALLATION,
        *tenant_removal.OF_PBX,
        *tenant_removal.OF_NUMBER,
        *tenant_removal.OF_TERM,
    )
    assert {each.__name__ for each in removed} == made
