"""The house has floors: an import points down, never up and never sideways."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import offhook
from offhook import testing

ROOT = Path(__file__).parents[1]

# What each package may import of ours, beside itself.
BELOW = {
    "unifiedapi": set[str](),
    "offhook": {"unifiedapi"},
    "receiver": {"offhook", "unifiedapi"},
    "workers": {"offhook", "unifiedapi"},
    "offhook_cli": {"offhook", "receiver", "unifiedapi", "workers"},
}
# What a plugin author may import, and so what a built-in handler may.
PUBLIC = {
    "offhook": set(offhook.__all__),
    "offhook.http": {"Answer", "is_private"},
    "offhook.ttl_cache": {"TtlCache"},
    "offhook.testing": set(testing.__all__),
}

# What built-in handlers share. It imports nothing of ours that a plugin may not.
SHARED = {f"workers.handlers.{name}" for name in ("cloud_event", "templates", "time_zone")}


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Each import of a file, inside functions too, as a module and a name in it (or nothing)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                yield node.module or "", alias.name


@pytest.mark.parametrize("package", BELOW)
def test_an_import_points_down(package: str) -> None:
    for path in modules(package):
        for module, _ in imports(path):
            top = module.partition(".")[0]
            if top in BELOW and top != package:
                assert top in BELOW[package], f"{path.relative_to(ROOT)} imports {module}"
            assert top != "tests", f"{path.relative_to(ROOT)} imports {module}"


def test_every_package_has_a_floor() -> None:
    assert {path.parent.name for path in ROOT.glob("*/py.typed")} == set(BELOW)


def own(path: Path) -> str:
    """What the modules of a handler begin with: it may be a package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:3]) + "."


def test_no_handler_imports_what_the_public_face_does_not_offer() -> None:
    for path in modules("workers/handlers"):
        for module, name in imports(path):
            if module in SHARED:
                continue
            if module.partition(".")[0] not in BELOW or f"{module}.".startswith(own(path)):
                continue
            if module.startswith("unifiedapi.") and not module.startswith("unifiedapi.sandbox"):
                continue  # usable alone, and so by a plugin
            where = f"{path.relative_to(ROOT)} imports {name} from {module}"
            assert module in PUBLIC, where
            assert name in PUBLIC[module], where
