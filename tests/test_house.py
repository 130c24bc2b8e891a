"""The layout of the product: floors, rooms, and one name for one thing.

An import points down, also one that is written as a string. Job names are the exception: names
cross a queue, code does not.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import offhook
from offhook import testing

ROOT = Path(__file__).parents[1]

# The packages that each package may import.
BELOW = {
    "unifiedapi": set[str](),
    "offhook": {"unifiedapi"},
    "receiver": {"offhook", "unifiedapi"},
    "workers": {"offhook", "unifiedapi"},
    "offhook_console": {"offhook", "unifiedapi"},
    "offhook_cli": {"offhook", "offhook_console", "receiver", "unifiedapi", "workers"},
}
# What plugins may import, and therefore built-in handlers.
PUBLIC = {
    "offhook": set(offhook.__all__),
    "offhook.errors": {"did_you_mean"},
    "offhook.http": {"Answer", "is_private"},
    "offhook.ttl_cache": {"TtlCache"},
    "offhook.testing": set(testing.__all__),
}

# What built-in handlers share. It imports nothing of ours that a plugin may not.
SHARED = {f"workers.handlers.{name}" for name in ("cloud_event", "templates", "time_zone")}
SQL = ("call_log", "database_url")  # what the handler and the lookup `sql` share
# The modules that import by a name that is not in their source.
BY_NAME = {
    "offhook",  # its public names, from a table of module names
    "offhook.plugins.finding",  # the plugins that the configuration names
}
# Module names that may be used twice.
SAME_MODULE = {
    "app": "the ASGI applications of the receiver and of the console",
    "callback": "what the PBX sends, and how the receiver accepts it",
    "client": "of the PBX's API, of HTTP targets, and of a cluster",
    "errors": "unifiedapi is usable alone",
    "lanes": "in a server, and parked in Redis",
    "services": "of the PBX's API: how a client calls them, and how the sandbox answers",
    "sql": "a handler and a lookup, named as their entry points",
}
# Class names that may be used twice.
SAME_CLASS = {"EventType": "the PBX's numbers, and our names for them"}
MAX_ARROWS = 80  # between the rooms of offhook
MAX_METHODS = 15  # of a class: private ones, too, but no properties and no `__special__` methods

JOB = re.compile(r"workers(?:\.\w+)+\.\w+")
A_MODULE = re.compile(rf"(?:{'|'.join(BELOW)})(?:\.\w+)+(?::\w+)?")


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def name_of(path: Path) -> str:
    """Return the dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for package in BELOW for path in modules(package)}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def every_node(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def imports(path: Path, nodes: Iterable[ast.AST] | None = None) -> Iterator[tuple[str, str]]:
    """Yield each import of a file, inside functions too, as a module and a name in it or ""."""
    for node in every_node(path) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                yield node.module or "", alias.name


def imported_modules(path: Path, nodes: Iterable[ast.AST] | None = None) -> set[str]:
    """Return the product's modules that a file imports, resolved to the module of each name."""
    found = set()
    for module, name in imports(path, nodes):
        for candidate in (f"{module}.{name}", module):
            if candidate in MODULES:
                found.add(candidate)
                break
    return found - {name_of(path)}


@cache
def strings(path: Path) -> tuple[str, ...]:
    """Return the strings of a file that are not docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in every_node(path)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return tuple(
        node.value
        for node in every_node(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    )


def named_modules(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each string that names a module or something in it, with the module."""
    for text in filter(A_MODULE.fullmatch, strings(path)):
        module = text.partition(":")[0]
        for candidate in (module, module.rpartition(".")[0]):
            if candidate in MODULES and "." in candidate:
                yield text, candidate
                break


@cache
def job_names() -> dict[str, str]:
    """Return the job names in the product, with the module that has each."""
    return {
        text: module
        for module, path in MODULES.items()
        for text in strings(path)
        if JOB.fullmatch(text) and text not in MODULES
    }


# Floors


@pytest.mark.parametrize("package", BELOW)
def test_imports_point_down(package: str) -> None:
    for path in modules(package):
        for module, _ in imports(path):
            top = module.partition(".")[0]
            if top in BELOW and top != package:
                assert top in BELOW[package], f"{path.relative_to(ROOT)} imports {module}"
            assert top != "tests", f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("package", BELOW)
def test_module_names_in_strings_point_down(package: str) -> None:
    jobs = job_names()
    for path in modules(package):
        for text, module in named_modules(path):
            top = module.partition(".")[0]
            if text not in jobs and top != package:
                assert top in BELOW[package], f"{path.relative_to(ROOT)} names {text}"


def test_job_names_are_functions() -> None:
    jobs = job_names()
    assert {"workers.serve.serve", "workers.redeliver.redeliver"} <= set(jobs)
    for text, module in jobs.items():
        place, _, function = text.rpartition(".")
        assert place in MODULES, f"{module} names {text}"
        assert callable(getattr(import_module(place), function, None)), f"{module} names {text}"


def test_imports_by_name_are_literal_or_known() -> None:
    for module, path in MODULES.items():
        for node in every_node(path):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called not in ("import_module", "__import__"):
                continue
            argument = node.args[0]
            if isinstance(argument, ast.JoinedStr):
                argument = argument.values[0]
            if isinstance(argument, ast.Constant):
                top = str(argument.value).partition(".")[0]
                own = module.partition(".")[0]
                assert top == own or top in BELOW[own] or top not in BELOW, f"{module}: {top}"
            else:
                assert module in BY_NAME, f"{module} imports by a name that no test can read"


def test_entry_points_exist_on_their_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    places = [(place, "workers") for group in project["entry-points"].values()
              for place in group.values()]  # fmt: skip
    places += [(place, "offhook_cli") for place in project["scripts"].values()]
    assert len(places) > 20
    for place, package in places:
        module, _, name = place.partition(":")
        assert module.partition(".")[0] == package
        assert hasattr(import_module(module), name), place


def test_every_package_has_a_floor() -> None:
    assert {path.parent.name for path in ROOT.glob("*/py.typed")} == set(BELOW)


def own_prefix(path: Path) -> str:
    """Return the prefix of a handler's own modules, because it may be a package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:3]) + "."


@pytest.mark.parametrize(
    ("folder", "shared"),
    [
        ("workers/handlers", SHARED),
        ("workers/lookups", SHARED | {f"workers.handlers.sql.{name}" for name in SQL}),
    ],
)
def test_built_in_plugins_import_only_what_plugins_may(folder: str, shared: set[str]) -> None:
    for path in modules(folder):
        for module, name in imports(path):
            if module in shared:
                continue
            if module.partition(".")[0] not in BELOW or f"{module}.".startswith(own_prefix(path)):
                continue
            if module.startswith("unifiedapi.") and not module.startswith("unifiedapi.sandbox"):
                continue  # usable alone, and therefore by a plugin
            where = f"{path.relative_to(ROOT)} imports {name} from {module}"
            assert module in PUBLIC, where
            assert name in PUBLIC[module], where


# Rooms


def room(module: str) -> str:
    """Return the room of a module: a module or folder directly in its package."""
    return ".".join(module.split(".")[:2])


def arrows() -> set[tuple[str, str]]:
    """Return the pairs of different rooms of which the first imports the second."""
    pairs = {(room(m), room(other)) for m, path in MODULES.items()
             for other in imported_modules(path)}  # fmt: skip
    return {(one, other) for one, other in pairs if one != other}


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {module: imported_modules(path, tree(path).body) for module, path in MODULES.items()}
    assert circle(graph) == []


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    graph = defaultdict(set)
    for one, other in arrows():
        graph[one].add(other)
    assert circle(graph) == []


def test_rooms_of_offhook_have_few_arrows() -> None:
    inside = [pair for pair in arrows() if all(each.split(".")[0] == "offhook" for each in pair)]
    assert len(inside) <= MAX_ARROWS


def test_pages_and_api_of_the_console_do_not_import_each_other() -> None:
    rooms = ("offhook_console.pages", "offhook_console.json_api")
    for here, there in (rooms, rooms[::-1]):
        for module, path in MODULES.items():
            if module.startswith(f"{here}."):
                wrong = {each for each in imported_modules(path) if each.startswith(f"{there}.")}
                assert not wrong, f"{module}: what both need belongs beside both rooms"


# One name, one thing


def twice(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    places = defaultdict(list)
    for name, place in names:
        places[name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_modules_have_different_names() -> None:
    names = (
        (module.rpartition(".")[2], module)
        for module in MODULES
        # A module of the command line is named as its command.
        if not module.startswith("offhook_cli.")
    )
    assert twice(names).keys() == SAME_MODULE.keys()


def test_public_classes_have_different_names() -> None:
    names = (
        (node.name, module)
        for module, path in MODULES.items()
        for node in tree(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    found = twice(names)
    assert {name: found[name] for name in found.keys() - SAME_CLASS.keys()} == {}
    assert found.keys() == SAME_CLASS.keys()


# Small classes


def methods(node: ast.ClassDef) -> list[str]:
    """The names of a class's methods, without properties and special methods."""
    return [
        each.name
        for each in node.body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        and not each.name.startswith("__")
        and not any("property" in ast.unparse(by) for by in each.decorator_list)
    ]


def test_classes_have_few_methods() -> None:
    large = {
        node.name
        for module, path in MODULES.items()
        if module.startswith(("offhook.", "workers."))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and len(methods(node)) > MAX_METHODS
    }
    assert large == set()
