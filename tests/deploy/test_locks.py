"""The lock files agree with pyproject.toml, the Dockerfile and each other."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.audit import pins

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
CRMS = ROOT / "tests" / "real_crm"
LOCKS = [*REQUIREMENTS.glob("*.txt"), *CRMS.glob("*.txt")]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]


def locked(lock: Path) -> dict[str, set[str]]:
    """Return the versions of each package: a lock file may have one per Python version."""
    versions: dict[str, set[str]] = {}
    for package, pinned in pins([lock]):
        versions.setdefault(package, set()).add(pinned)
    return versions


def named(extras: Iterable[str]) -> Iterator[Requirement]:
    """Yield the requirements of the project with these extras, including nested extras."""
    texts = list(PROJECT["dependencies"])
    texts += [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, texts):
        if requirement.name == PROJECT["name"]:
            yield from named(requirement.extras)
        else:
            yield requirement


def satisfies(lock: Path, requirements: Iterable[Requirement]) -> None:
    versions = locked(lock)
    for requirement in requirements:
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{lock.name} lacks {requirement}: make lock"
        for pinned in found:
            assert pinned in requirement.specifier, f"{lock.name} has {pinned}, not {requirement}"


def test_dev_lock_satisfies_pyproject() -> None:
    satisfies(REQUIREMENTS / "dev.txt", named(["all", "dev"]))


def test_production_lock_satisfies_pyproject() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (line,) = re.findall(r"^PRODUCTION := (.*)$", makefile, re.MULTILINE)
    extras = re.findall(r"--extra (\w+)", line)
    wanted = {"console", "oidc", "sql", "postgresql", "notify", "webhook", "metrics", "otel"}
    assert set(extras) == wanted
    satisfies(REQUIREMENTS / "production.txt", named(extras))


def test_demo_lock_satisfies_pyproject() -> None:
    satisfies(REQUIREMENTS / "demo.txt", named(["demo"]))
    satisfies(REQUIREMENTS / "demo.txt", map(Requirement, ["hatchling", "hatch-vcs", "editables"]))


def test_build_lock_satisfies_pyproject() -> None:
    satisfies(REQUIREMENTS / "build.txt", map(Requirement, PYPROJECT["build-system"]["requires"]))


def test_other_locks_use_the_tested_versions() -> None:
    tested = locked(REQUIREMENTS / "dev.txt")
    for name in ("production.txt", "build.txt", "demo.txt"):
        for package, pinned in locked(REQUIREMENTS / name).items():
            # Some packages are only for a Python or system that dev.txt does not cover.
            assert pinned <= tested.get(package, pinned), f"{name} has {package} {pinned}"


@pytest.mark.parametrize("source", sorted(CRMS.glob("*.in")), ids=lambda path: path.stem)
def test_crm_lock_satisfies_its_source(source: Path) -> None:
    lines = source.read_text().splitlines()
    satisfies(source.with_suffix(".txt"), map(Requirement, lines))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_lock_has_hashes_and_no_index_or_path(lock: Path) -> None:
    head, body = lock.read_text().split("\n", 2)[1:]
    assert head == "#    make lock"
    for line in body.splitlines():
        pinned = re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+( ; [^\\]+)? \\", line)
        hashed = re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line)
        comment = re.fullmatch(
            r"    #( via)?( {3})? ?"
            r"([\w.-]+( \(pyproject\.toml\))?|-c requirements/dev\.txt"
            r"|-r (-|tests/real_crm/\w+\.in))?",
            line,
        )
        assert pinned or hashed or comment, line
    assert len(re.findall(r"^\S.*\\\n    --hash", body, re.MULTILINE)) == len(pins([lock])) > 0


def test_image_installs_only_locked_packages() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    commands = re.findall(r"pip (?:install|wheel) [^&\n]*", text)
    installed = set()
    for command in commands:
        lock = re.search(r"--require-hashes -r (\S+)", command)
        assert lock or "--no-deps" in command, command
        installed |= {lock[1]} if lock else set()
        assert "pip wheel" not in command or "--no-build-isolation" in command
    assert installed == {"requirements/build.txt", "requirements/production.txt"}


def test_uvicorn_is_limited_to_the_tested_minor_release() -> None:
    """The receiver extends uvicorn's HTTP protocol, which is not a public interface."""
    (uvicorn,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "uvicorn")
    (tested,) = locked(REQUIREMENTS / "dev.txt")["uvicorn"]
    major, minor = map(int, tested.split(".")[:2])
    limits = {str(limit) for limit in uvicorn.specifier}
    assert limits == {f">={major}.{minor}", f"<{major}.{minor + 1}"}
    assert version("uvicorn") in uvicorn.specifier, "not the tested uvicorn: make setup"
