"""docs/redis-keys.md and offhook/inbox/keys.py name the same keys, and Redis holds no other."""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import httpx
from redis.crc import key_slot

from offhook import ExtensionSettings
from offhook.callback_url import callback_url
from offhook.connection import connect
from offhook.extensions import Extensions
from offhook.inbox import keys
from tests.conftest import SECRET
from tests.installation import Installation, wait_until
from tests.unifiedapi.serving import serve
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Store

ROOT = Path(__file__).parents[3]
ROWS = re.findall(
    r"^\| `((?:offhook|rq):[^`]+)` \| ([a-z ]+) \|",
    (ROOT / "docs" / "redis-keys.md").read_text(),
    re.MULTILINE,
)
DOCUMENTED = dict(ROWS)
NOT_A_KEY = {"offhook/provisioning/plan.py"}  # the note of a phone call event on the PBX

# In Redis only for a moment, after days, or not stored at all.
RARE = {
    "offhook:apart",
    "offhook:{offhook:trouble}:unannounced",
    "offhook:deaths",
    "offhook:diagnosis",
    "offhook:paused",
    "offhook:{PARTITION}:behind",
    "offhook:{PARTITION}:epoch",
    "offhook:{PARTITION}:owners",
    "offhook:{PARTITION}:ready",
    "offhook:{PARTITION}:redelivering",
    "offhook:{PARTITION}:replays",
    "offhook:{PARTITION}:staying",
    "offhook:{PARTITION}:unfinished",
    "offhook:deliveries",
    "offhook:habits:silent",
    "offhook:proof:PBX",
    "offhook:refused",
    "offhook:reload",
    "offhook:lookup:LOOKUP:asking:NUMBER",
    "offhook:memory:HANDLER:NAME:lock",
    # The console's, which does not run here.
    "offhook:audit",
    "offhook:calling:NUMBER",
    "offhook:last-seen",
    "offhook:request:DIGEST",
    "offhook:sign-in:LIMIT",
    "offhook:dial:LIMIT",
    "offhook:walls",
    "offhook:operations",
    "offhook:drift",
    "offhook:setup",
    "offhook:setup:lease",
    "offhook:operation:OPERATION:lease",
}

CONFIGURATION = """
[handlers.crm]
use = "tests.recorders:remember"
[handlers.down]
use = "tests.recorders:never_now"
retry = [1]
[handlers.screen]
use = "console"
events = ["call-ended", "phone-unregistered", "extension-silent", "trouble"]
[lookups.book]
use = "tests.offhook.lookups:Broken"
[pbx.main]
host = "{url}"
token = "sandbox-token"
insecure = true
zone = "UTC"
"""


def names_in_the_code() -> set[str]:
    names = set()
    for name, found in vars(keys).items():
        if inspect.isfunction(found) and not name.startswith("_"):
            every = inspect.signature(found).parameters.values()
            required = [each.name for each in every if each.default is each.empty]
            names.add(found(*map(str.upper, required)))
        elif name.isupper():
            names.add(found)
    return names - {keys.partition_prefix("PARTITION")}  # type: ignore[arg-type]


def test_every_key_is_documented_once_and_no_other() -> None:
    documented = [name for name, _ in ROWS]
    assert len(documented) == len(set(documented))
    assert {name for name in documented if name.startswith("offhook:")} == names_in_the_code()


def test_keys_of_a_partition_are_in_one_slot_of_a_cluster() -> None:
    slots: dict[int, set[int]] = {3: set(), 4: set()}
    for name, make in inspect.getmembers(keys, inspect.isfunction):
        parameters = [*inspect.signature(make).parameters]
        if parameters[:1] == ["partition"] and not name.startswith("_"):
            for partition, found in slots.items():
                for text in ("one", "{other}"):
                    key = make(partition, *[text for _ in parameters[1:]])
                    found.add(key_slot(key.encode()))
    assert [len(found) for found in slots.values()] == [1, 1]
    assert slots[3] != slots[4]


def test_no_other_module_spells_a_key() -> None:
    for package in (
        "offhook",
        "offhook_cli",
        "offhook_console",
        "receiver",
        "unifiedapi",
        "workers",
    ):
        for path in (ROOT / package).rglob("*.py"):
            where = str(path.relative_to(ROOT))
            if where == "offhook/inbox/keys.py" or where in NOT_A_KEY:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not node.value.startswith("offhook:"), f"{where} spells {node.value!r}"


def test_a_running_installation_has_no_other_keys(tmp_path: Path) -> None:
    types: dict[str, str] = {}
    with (
        serve(create_sandbox(Store.example())) as pbx,
        Installation.running(
            tmp_path,
            CONFIGURATION.format(url=pbx),
            settle=3.0,  # so long that the look at all keys sees open calls
            settle_unanswered=3.0,
            daily_summary="00:00",  # that of today is due at any time
        ) as offhook,
        offhook.client() as redis,
    ):
        asyncio.run(set_up_an_extension(offhook.redis_url))
        for call in range(5):  # as many failures open the circuit of `down`
            for n, type_ in enumerate(("dial-in", "answer-in", "hangup")):
                assert call_back(offhook, type_, CallID=f"c{call}", n=str(n)) == 200
        assert call_back(offhook, "dial-in", CallFlow="sideways") == 400

        def unseen() -> set[str]:
            for key in redis.scan_iter():
                types[key] = redis.type(key)
            ours = {name for name in DOCUMENTED if name.startswith("offhook:")}
            return ours - RARE - set(map(documented, types))

        wait_until(lambda: not unseen(), "every key of ours has been in Redis", 90)
    for key, type_ in types.items():
        assert documented(key), f"{key} is not documented"
        expected = DOCUMENTED[documented(key)].replace("sorted set", "zset")
        assert type_ in (expected, "none"), f"{key} is a {type_}"  # none: it has just expired


def documented(key: str) -> str:
    """The documented name of a key; of several that match, the one that says most."""
    matching = [name for name in DOCUMENTED if pattern(name).fullmatch(key)]
    return max(matching, key=len, default="")


def pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"([A-Z_]{2,})", name)
    return re.compile("".join(".+" if n % 2 else re.escape(part) for n, part in enumerate(parts)))


async def set_up_an_extension(url: str) -> None:
    async with connect(url) as client:
        await Extensions(client).change({("main", "0003*210"): ExtensionSettings()})


def call_back(offhook: Installation, type_: str, **parameters: str) -> int:
    """Make a callback as the PBX does; return the status of the response."""
    form = {
        "CallFlow": "IN",
        "CallStatus": "ANSWER",
        "CallerIDNum": "40211234567",
        "CalledDID": "40318100210",
        "CalledExtension": "0003*210",
    }
    base = f"http://127.0.0.1:{offhook.port}"
    url = callback_url(base, SECRET, "main", "0003*210", type_)
    return httpx.post(url, data=form | parameters, timeout=30).status_code
