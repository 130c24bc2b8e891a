"""What an integrator reads about a plugin that cannot run; all others can."""

import json
from pathlib import Path
from textwrap import dedent

import pytest

from offhook.plugins import plug_all, wanted_types
from offhook.settings import load_settings
from tests.bad_situations.conftest import Check
from tests.offhook_cli.conftest import Offhook

HEAD = """\
from dataclasses import dataclass
from offhook import Handler, Lookup
"""
CLASS = """
@dataclass(frozen=True)
class Crm(Handler):
    url: str = ""
    async def handle(self, event, context): ...
"""

# What the file says (in a module of its own), and what an integrator reads; `FILE` is its path.
BROKEN = {
    "def handle(event:\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: SyntaxError: '(' was never closed "
        "(FILE, line 1)"
    ),
    "x = 1\n  y = 2\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: IndentationError: unexpected indent "
        "(FILE, line 2)"
    ),
    "x = 1\ny = x / 0\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: ZeroDivisionError: division by zero "
        "(FILE, line 2)"
    ),
    "import json\n\nOPTIONS = json.loads('{')\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: JSONDecodeError: Expecting property "
        "name enclosed in double quotes: line 1 column 2 (char 1) (FILE, line 3)"
    ),
    "import os\nKEY = os.environ['NO_SUCH_KEY']\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: KeyError: 'NO_SUCH_KEY' (FILE, line 2)"
    ),
    "import sys\nsys.exit('no key')\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: SystemExit: no key (FILE, line 2)"
    ),
    "def load():\n    raise RuntimeError\nload()\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: RuntimeError (FILE, line 2)"
    ),
    "import no_such_package\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be imported: No module named 'no_such_package' "
        "(FILE, line 1): install what it needs into Offhook's environment"
    ),
    "from json import lods\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be imported: cannot import name 'lods' from 'json' "
        "(JSON) (FILE, line 1): install what it needs into Offhook's environment"
    ),
    f"{HEAD}{CLASS}    def __post_init__(self):\n        raise KeyError('url')\n": (
        "handlers.crm.options cannot be loaded: KeyError: 'url' (FILE, line 9)"
    ),
    f"import socket\n{HEAD}{CLASS.replace('str', 'socket.socket')}": (
        "handlers.crm.options cannot be loaded: PydanticSchemaGenerationError: Unable to generate "
        "pydantic-core schema for <class 'socket.socket'>. Set `arbitrary_types_allowed=True` in "
        "the model_config to ignore this error or implement `__get_pydantic_core_schema__` on "
        "your type to fully support it."
    ),
}
# The configuration is wrong: nothing starts before it is corrected.
WRONG = {
    "": "handlers.crm.use: 'MODULE:Crm' cannot be loaded: MODULE has no 'Crm'",
    "class Crmm: ...\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: MODULE has no 'Crm'; did you mean 'Crmm'?"
    ),
    "Crm = 5\n": "handlers.crm.use: 'MODULE:Crm' is neither a handler class nor a function",
    "class Crm: ...\n": (
        "handlers.crm.use: 'MODULE:Crm' must be a dataclass that inherits from offhook.Handler"
    ),
    f"{HEAD}class Crm(Handler): ...\n": (
        "handlers.crm.use: 'MODULE:Crm' must be a dataclass that inherits from offhook.Handler"
    ),
    f"{HEAD}{CLASS}    events = 'hangup'\n": (
        "handlers.crm.use: 'MODULE:Crm' cannot be loaded: Crm.events: it must be a tuple"
    ),
    f"{HEAD}{CLASS}    def __post_init__(self):\n        raise ValueError('url: set it')\n": (
        "handlers.crm.options: url: set it"
    ),
}


def module(folder: Path, text: str) -> str:
    """Write a module that was never imported, and return its name."""
    name = f"plugin_{abs(hash((folder, text)))}"
    (folder / f"{name}.py").write_text(dedent(text))
    return name


def shown(sentences: list[str], name: str) -> list[str]:
    return [
        each.replace(f"HERE/{name}.py", "FILE")
        .replace(name, "MODULE")
        .replace(str(json.__file__), "JSON")
        for each in sentences
    ]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_plugin_is_named_and_the_others_run(text: str, check: Check, folder: Path) -> None:
    name = module(folder, text)
    told = check(f"[handlers.crm]\nuse = '{name}:Crm'\n[handlers.screen]\nuse = 'console'\n")
    assert shown(told, name) == [BROKEN[text]]
    settings = load_settings()
    found = plug_all(settings.handlers, settings.lookups)
    assert (list(found.handlers), list(found.broken), found.problems) == (
        ["screen"],
        ["handlers.crm"],
        [],
    )


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_plugin_is_a_wrong_setting(text: str, check: Check, folder: Path) -> None:
    name = module(folder, text)
    assert shown(check(f"[handlers.crm]\nuse = '{name}:Crm'\n"), name) == [WRONG[text]]
    assert plug_all(load_settings().handlers, {}).problems


def test_a_broken_plugin_asks_for_no_events(check: Check, folder: Path) -> None:
    name = module(folder, "1 / 0\n")
    check(
        f"[handlers.crm]\nuse = '{name}:Crm'\n"
        "[handlers.screen]\nuse = 'console'\nevents = ['hangup']\n"
    )
    assert wanted_types(load_settings().handlers) == {"hangup"}


def test_a_missing_module_says_where_to_put_it(check: Check) -> None:
    assert check("[handlers.crm]\nuse = 'no_such:Crm'\n") == [
        "handlers.crm.use: 'no_such:Crm' cannot be imported: No module named 'no_such': "
        "put no_such.py into HERE, or install its package"
    ]


def test_a_function_takes_no_options(check: Check, folder: Path) -> None:
    name = module(folder, "def crm(event): ...\n")
    assert check(f"[handlers.crm]\nuse = '{name}:crm'\noptions.url = 'x'\n") == [
        "handlers.crm.options: a function takes no options; use a handler class instead"
    ]


def test_a_broken_lookup_is_named(check: Check, folder: Path) -> None:
    name = module(folder, "1 / 0\n")
    told = check(f"[lookups.staff]\nuse = '{name}:Staff'\n")
    assert shown(told, name) == [
        "lookups.staff.use: 'MODULE:Staff' cannot be loaded: ZeroDivisionError: division by zero "
        "(FILE, line 1)"
    ]


def test_a_lookup_whose_own_check_fails_is_named(check: Check, folder: Path) -> None:
    name = module(
        folder,
        f"{HEAD}@dataclass(frozen=True)\nclass Staff(Lookup):\n"
        "    def name_of(self, number, context): ...\n"
        "    def problem(self):\n        return {}['server']\n",
    )
    assert shown(check(f"[lookups.staff]\nuse = '{name}:Staff'\n"), name) == [
        "lookups.staff: its `problem()` failed: KeyError: 'server' (FILE, line 7)"
    ]
    settings = load_settings()
    assert list(plug_all({}, settings.lookups).lookups) == ["staff"]


def test_handlers_lists_a_broken_plugin(check: Check, folder: Path, offhook: Offhook) -> None:
    name = module(folder, "x = 1\n1 / 0\n")
    check(f"[handlers.crm]\nuse = '{name}:Crm'\n[handlers.screen]\nuse = 'console'\n")
    result = offhook("handlers")
    assert result.exit_code == 1
    assert result.stderr == (
        f"! handlers.crm.use: '{name}:Crm' cannot be loaded: ZeroDivisionError: division by zero "
        f"({folder}/{name}.py, line 2)\n"
    )
    assert "console" in result.stdout


def test_work_reports_every_fault_at_once(check: Check, folder: Path, offhook: Offhook) -> None:
    name = module(folder, "Crm = 5\n")
    check(
        f"region = 'UK'\n[handlers.crm]\nuse = '{name}:Crm'\n"
        "[lookups.staff]\nuse = 'csv'\ntimeout = 99\noptions.pth = 'x'\n"
    )
    result = offhook("work")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()] == [
        "region",
        "lookups.staff.timeout",
        "handlers.crm.use",
        "lookups.staff.options.path",
        "lookups.staff.options.pth",
    ]
