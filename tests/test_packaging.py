"""The wheel that an operator installs."""

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("offhook", "offhook_cli", "offhook_console", "receiver", "unifiedapi", "workers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            str(folder),
            str(ROOT),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("offhook-*-py3-none-any.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel as pip does."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_contains_exactly_our_packages(installed: Path) -> None:
    (information,) = installed.glob("*.dist-info")
    assert {path.name for path in installed.iterdir()} == {*PACKAGES, information.name}
    for package in PACKAGES:
        source = {
            path.relative_to(ROOT)
            for path in (ROOT / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        packaged = {
            path.relative_to(installed)
            for path in (installed / package).rglob("*")
            if path.is_file()
        }
        assert packaged == source
        assert Path(package, "py.typed") in packaged
    assert (information / "licenses" / "LICENSE").is_file()


def test_entry_points_can_be_loaded_from_the_wheel(installed: Path) -> None:
    """Only the unpacked wheel is on the path, not the working tree."""
    (information,) = installed.glob("*.dist-info")
    points = ConfigParser(delimiters=("=",))
    points.read(information / "entry_points.txt")
    targets = dict(points["console_scripts"]) | dict(points["offhook.handlers"])
    lookups = dict(points["offhook.lookups"])
    assert {"offhook", "console", "notify", "sql", "webhook"} <= set(targets)
    assert {"csv", "sql", "hubspot"} <= set(lookups)
    program = (
        "import sys\n"
        "from importlib.metadata import EntryPoint\n"
        "for target in sys.argv[2:]:\n"
        "    found = EntryPoint('', target, '').load()\n"
        "    module = sys.modules[target.partition(':')[0]]\n"
        "    assert module.__file__.startswith(sys.argv[1]), module.__file__\n"
        "    assert callable(found)\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program, str(installed), *targets.values(), *lookups.values()],
        cwd=installed,
        env={"PYTHONPATH": str(installed), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
