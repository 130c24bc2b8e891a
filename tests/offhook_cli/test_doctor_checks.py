"""The doctor's checks of what a test cannot break for real."""

import resource
import zoneinfo
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from offhook.operations.server_check import RedisServer, servers
from offhook.settings import load_settings
from offhook_cli.diagnosis import cluster_checks, machine_checks, receiver_checks, server_checks
from offhook_cli.diagnosis.cluster_checks import SeenCluster
from offhook_cli.diagnosis.findings import Finding, Verdict
from offhook_cli.diagnosis.server_checks import SeenServer
from tests.conftest import Configure
from tests.healthy import LOCAL


def server_that_says(
    info: Mapping[str, object], ahead: float = 0.0, setting: str = "redis_url"
) -> SeenServer:
    return SeenServer(RedisServer(setting, "redis://x"), load_settings(), info, "always", ahead)


@pytest.mark.parametrize(
    ("url", "sentence"),
    {
        "https://offhook.example.com": "public_url is an https:// address",
        "http://offhook.example.com": "public_url is not encrypted, so anyone on the way can read "
        "tokens and phone numbers: let a proxy with a certificate lead to the receiver, and use "
        "https://",
        "http://localhost:8080": LOCAL.removeprefix("Receiver: warn "),
        "http://[::1]:8080": LOCAL.removeprefix("Receiver: warn "),
    }.items(),
)
def test_public_url_should_be_encrypted(url: str, sentence: str, configure: Configure) -> None:
    configure(public_url=url)
    [found] = receiver_checks.public_url(receiver_checks.SeenReceiver(load_settings(), None))
    assert found.sentence == sentence


def node(id_: str, flags: str, slots: bool = False, of: str = "-") -> dict[str, object]:
    return {
        "node_id": id_,
        "flags": flags,
        "master_id": of,
        "slots": [["0", "1"]] if slots else [],
        "migrations": [],
        "connected": True,
    }


def test_cluster_that_cannot_survive_a_failure_is_seen() -> None:
    info = {"cluster_state": "fail", "cluster_slots_ok": "10922"}
    moving = node("b", "master", slots=True)
    moving["migrations"] = [{"slot": "7", "node_id": "a", "state": "migrating"}]
    seen = SeenCluster(
        info,
        {
            "10.0.0.1:6379": node("a", "myself,master", slots=True),
            "10.0.0.2:6379": moving,
            "10.0.0.3:6379": node("c", "master,fail", slots=True),
            "10.0.0.4:6379": node("d", "slave", of="a"),
        },
        15_000,
    )
    assert [each.sentence for check in cluster_checks.CHECKS for each in check(seen)] == [
        "serves 10922 of 16384 slots: events of the others wait in the journals; start the nodes "
        "that are missing, or give their slots to others",
        "node 10.0.0.3:6379 does not answer the others: start it, or forget it",
        "has 2 primaries: it cannot replace one that fails; a majority of at least 3 has to agree "
        "that it has",
        "primary 10.0.0.2:6379 has no replica: if it fails, its events wait until it is back",
        "replaces a primary only 15 s after it has failed (cluster-node-timeout): set it to 3000 "
        "or less, so that deliveries go on sooner",
        "slot 7 is being moved key by key (node 10.0.0.2:6379): a partition in it waits until that "
        "is finished",
    ]


@pytest.mark.parametrize(
    ("ahead", "sentence"),
    [
        (1.9, "its clock agrees with that of this machine"),
        (61.0, "its clock is 61 s ahead of that of this machine, so redeliveries and times in "
               "reports are wrong: synchronize both with NTP"),
        (-3.0, "its clock is 3 s behind that of this machine, so redeliveries and times in "
               "reports are wrong: synchronize both with NTP"),
    ],
)  # fmt: skip
def test_clocks_may_differ_by_two_seconds(
    ahead: float, sentence: str, configure: Configure
) -> None:
    configure()
    settings = load_settings()
    [server] = servers(settings)
    assert abs(server_checks.look_at(server, settings).ahead) < 1
    assert [each.sentence for each in server_checks.clock(server_that_says({}, ahead))] == [
        sentence
    ]


def test_a_server_that_cannot_write_is_named(configure: Configure) -> None:
    configure()
    info = {"aof_last_write_status": "err", "rdb_last_bgsave_status": "err"}
    assert [each.sentence for each in server_checks.disk(server_that_says(info))] == [
        f"could not write its {what}, and may refuse events: see its log; is its disk full?"
        for what in ("append-only file", "snapshot")
    ]


def test_an_old_server_fails(configure: Configure) -> None:
    configure()
    [found] = server_checks.version(server_that_says({"redis_version": "6.2.14"}))
    assert (found.verdict, found.sentence) == (
        "fail",
        "Redis at redis://x has version 6.2.14, which is too old: "
        "install Redis or Valkey 7.2, or newer",
    )
    [found] = server_checks.version(server_that_says({"redis_version": "7.4.2"}))
    assert (found.verdict, found.sentence) == ("pass", "answers: Redis 7.4.2")


@pytest.mark.parametrize(
    ("used", "verdict", "end"),
    [
        (80, "pass", "(80 MB of 100 MB)"),
        (81, "warn", ": delivered events are deleted before keep_days; raise maxmemory"),
        (90, "warn", ": delivered events are deleted before keep_days; raise maxmemory"),
        (91, "fail", "or see with `offhook status` which handler is behind"),
    ],
)
def test_memory_runs_out_in_steps(used: int, verdict: str, end: str, configure: Configure) -> None:
    configure()
    info = {"used_memory": used * 1_000_000, "maxmemory": 100_000_000}
    [found] = server_checks.memory(server_that_says(info))
    assert found.verdict == verdict
    assert found.sentence.startswith(f"uses {used}% of its maxmemory ({used} MB of 100 MB)")
    assert found.sentence.endswith(end)
    [found] = server_checks.memory(server_that_says(info, setting="rq_url"))  # it has no events
    assert found.verdict == ("pass" if verdict == "pass" else "warn")
    assert "events" not in found.sentence


@pytest.mark.parametrize(
    ("replicas", "finding"),
    [
        (1, Finding(Verdict.FAIL, "has 1 of the 2 replicas that must have an event (replicas): "
                                  "every event goes to the journal until it has them all")),
        (2, Finding(Verdict.PASS, 'satisfies durability = "replica"')),
        (3, Finding(Verdict.WARN, "has 3 replicas, and only 2 of them must have an event: a "
                                  "failover to another one loses events; set replicas to 3")),
    ],
)  # fmt: skip
def test_replicas_may_be_too_few_or_too_many(
    replicas: int, finding: Finding, configure: Configure
) -> None:
    configure(durability="replica", replicas=2)
    seen = server_that_says({"connected_slaves": replicas})
    assert [*server_checks.durability(seen)] == [finding]


def test_few_open_files_are_named(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    [found] = machine_checks.open_files(load_settings())
    assert found.sentence == (
        "a process of this user may open only 4,096 files, so the receiver takes fewer "
        "connections: raise the limit (LimitNOFILE in its unit, or `ulimit -n`)"
    )


def zone_file(name: str) -> bytes:
    """Return a zone's rules, from the package `tzdata`."""
    return files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


@pytest.fixture
def zone_files(tmp_path: Path) -> Iterator[list[Path]]:
    """Return two folders with databases of time zones that Python searches."""
    folders = [tmp_path / "system", tmp_path / "other"]
    before = zoneinfo.TZPATH
    for folder in folders:
        (folder / "Europe").mkdir(parents=True)
    zoneinfo.reset_tzpath([str(each) for each in folders])
    yield folders
    zoneinfo.reset_tzpath(before)
    ZoneInfo.clear_cache()


def test_databases_of_time_zones_that_differ_are_named(
    configure: Configure, zone_files: list[Path]
) -> None:
    configure('[pbx.main]\nhost = "https://x"\ntoken = "x"\nzone = "Europe/Berlin"\n')
    settings = load_settings()

    def told() -> list[str]:
        return [each.sentence for each in machine_checks.time_zones(settings)]

    known = ["the time zones of the settings are known: Europe/Berlin"]
    assert told() == known
    berlin, moscow = (zone_file(each) for each in ("Europe/Berlin", "Europe/Moscow"))
    for folder in zone_files:
        (folder / "Europe" / "Berlin").write_bytes(berlin)
    assert told() == known
    for other in (moscow, b"damaged"):
        (zone_files[1] / "Europe" / "Berlin").write_bytes(other)
        assert told() == [
            "this machine has two databases of time zones that differ about Europe/Berlin: update "
            "the system's (Debian: apt install tzdata) and Python's (pip install --upgrade tzdata)"
        ]
