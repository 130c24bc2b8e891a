"""`offhook presence` and `offhook agents`, on a sandbox PBX."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_cli.conftest import Offhook
from unifiedapi.resources import AgentStatus

QUEUE = "0003*400"


@pytest.fixture
def pbx() -> Iterator[Sandbox]:
    with sandbox() as running:
        yield running


@pytest.fixture(autouse=True)
def _configured(pbx: Sandbox, configure: Configure) -> None:
    configure(table("main", pbx))


def table(name: str, pbx: Sandbox) -> str:
    app = next(iter(pbx.store.apps.values()))
    return f"""
[pbx.{name}]
host = "{pbx.url}"
client_id = "{app.id}"
client_secret = "{app.secret}"
insecure = true
"""


def test_presence_lists_every_phone_of_the_user(offhook: Offhook) -> None:
    result = offhook("presence")
    assert result.exit_code == 0, result.output
    assert "0003*210" in result.stdout
    assert QUEUE not in result.stdout


def test_presence_of_one_extension_as_json(offhook: Offhook) -> None:
    [found] = json.loads(offhook("presence", "0003*210", "--json").stdout)
    assert found["extension"] == "0003*210"
    assert {"status", "phones"} <= found.keys()


def test_refusal_of_the_pbx_is_one_sentence(offhook: Offhook) -> None:
    result = offhook("presence", "0003*999")
    assert result.exit_code == 1
    assert "the PBX refuses: " in result.stderr
    assert "Traceback" not in result.output


def test_agents_are_listed(offhook: Offhook, pbx: Sandbox) -> None:
    listed = json.loads(offhook("agents", QUEUE, "--json").stdout)
    expected = [agent.number for agent in pbx.store.extensions[QUEUE].agents]
    assert sorted(each["agent"] for each in listed) == sorted(expected)


@pytest.mark.parametrize(
    ("option", "status"),
    [
        ("--pause", AgentStatus.PAUSED),
        ("--logout", AgentStatus.LOGGED_OUT),
        ("--login", AgentStatus.ONLINE),
    ],
)
def test_option_sets_the_status_of_an_agent(
    offhook: Offhook, pbx: Sandbox, option: str, status: AgentStatus
) -> None:
    agent = pbx.store.extensions[QUEUE].agents[0]
    result = offhook("agents", QUEUE, agent.number, option)
    assert result.exit_code == 0, result.output
    assert pbx.store.extensions[QUEUE].agents[0].status == status


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((QUEUE, "--pause"), "name the agent"),
        ((QUEUE, "0003*210", "--pause", "--login"), "use only one of"),
    ],
)
def test_contradictory_options_are_refused(
    offhook: Offhook, arguments: tuple[str, ...], sentence: str
) -> None:
    result = offhook("agents", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_one_of_several_pbxs_must_be_named(
    offhook: Offhook, pbx: Sandbox, configure: Configure
) -> None:
    configure(table("main", pbx) + table("other", pbx))
    assert "choose a PBX with --pbx" in offhook("presence").stderr
    assert offhook("presence", "--pbx", "other").exit_code == 0
    assert "no PBX is configured as 'third'" in offhook("presence", "--pbx", "third").stderr


def test_unreachable_pbx_is_one_sentence(offhook: Offhook, configure: Configure) -> None:
    configure('[pbx.main]\nhost = "https://127.0.0.1:1"\ntoken = "abcdefghij"\n')
    result = offhook("presence")
    assert result.exit_code == 1
    assert "127.0.0.1" in result.stderr
    assert "Traceback" not in result.output


def test_unsupported_api_is_reported(offhook: Offhook, configure: Configure) -> None:
    configure('[pbx.office]\ndialect = "telphin"\n')
    result = offhook("presence")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "pbx.office: Offhook does not speak the API of telphin\n"
