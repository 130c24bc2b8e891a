"""Builds the image of deploy/Dockerfile without an engine, and runs it: make image

    python -m tests.drills.image [--mirror URL]

Needs root, mmdebstrap, buildah and systemd-container, and no registry: Debian 13's Python takes the
place of python:3.13-slim, which is Debian 13 with a Python of its own. The container is one of
systemd-nspawn: read-only, without network and capabilities, as the image's user.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import SECRET
from tests.drills.needs import need_root_and
from tests.installation import ROOT, wait_until
from tests.processes import children
from tests.receiver.running import url

BASE, OURS = "docker.io/library/python:3.13-slim", "localhost/offhook"
PACKAGES = "python3,python3-venv,ca-certificates"
CLEAN = {"PATH": "/opt/offhook/bin:/usr/bin:/bin", "OFFHOOK_CONFIG": "/etc/offhook/offhook.toml"}
ASK = """
import sys, urllib.request
data = b"CallID=1" if "/callback/" in sys.argv[1] else None
with urllib.request.urlopen("http://127.0.0.1:8080" + sys.argv[1], data, timeout=4) as answer:
    print(answer.status, answer.read().decode())
"""


class Buildah:
    """Buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._command = ["buildah", "--root", f"{folder}/store", "--runroot", f"{folder}/run"]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--base", type=Path, help="an archive of the base, made before")
    asked = parser.parse_args()
    packages = {each: each for each in ("mmdebstrap", "buildah")}
    need_root_and(packages | {"systemd-nspawn": "systemd-container"})
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        folder = Path(name)
        buildah = Buildah(folder)
        archive = asked.base or make_base(folder, asked.mirror)
        container = buildah("from", "scratch")
        buildah("add", container, str(archive), "/")
        chroot = ["--isolation", "chroot"]
        # As in the image that it stands for, pip is apart from Debian's packages.
        buildah("run", *chroot, container, "python3", "-m", "venv", "/usr/local")
        buildah("commit", container, BASE)
        began = time.monotonic()
        build = ["--pull-never", "--network", "host", "--build-arg", "VERSION=0.1.0"]
        build += ["--file", f"{ROOT}/deploy/Dockerfile", "--tag", OURS, str(ROOT)]
        buildah("build-using-dockerfile", *chroot, "--format", "docker", *build)
        print(f"built in {time.monotonic() - began:.0f} s", flush=True)
        started = buildah("from", "--pull-never", OURS)
        described = json.loads(buildah("inspect", started))["OCIv1"]["config"]
        try:
            check(Path(buildah("mount", started)), described, folder)
        finally:
            buildah("umount", "--all")


def make_base(folder: Path, mirror: str) -> Path:
    """Make the base: Debian's Python, and how this machine reaches PyPI."""
    archive = folder / "base.tar"
    command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}"]
    command += [f"--aptopt={each}" for each in sorted(Path("/etc/apt/apt.conf.d").glob("99*"))]
    for each in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if Path(each).exists():
            command.append(f"--customize-hook=copy-in {each} {Path(each).parent}")
    subprocess.run([*command, "trixie", str(archive), mirror], check=True)
    return archive


def check(root: Path, described: dict[str, Any], folder: Path) -> None:
    """Run the container's command as an engine would, and send it a callback."""
    state, settings = folder / "state", folder / "settings"
    for each in (state, settings, root / "etc" / "offhook"):
        each.mkdir(exist_ok=True)
    os.chown(state, 10001, 10001)
    (settings / "offhook.toml").write_text(
        f'secret = "{SECRET}"\n[handlers.log]\nuse = "console"\n'
    )
    folder.chmod(0o755)
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--as-pid2"]
    command += ["--read-only", "--private-network", "--no-new-privileges=yes"]
    command += ["--drop-capability=all", "--tmpfs=/tmp", f"--user={described['User']}"]
    command += [f"--bind-ro={settings}:/etc/offhook", f"--bind={state}:/var/lib/offhook"]
    command += [f"--setenv={each}" for each in described["Env"]]
    command += ["--console=pipe", "--directory", str(root), *described["Cmd"]]
    environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    running = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: bool(receivers(running.pid)), "the receiver starts")
        (process,) = receivers(running.pid)
        wait_until(lambda: "live" in inside(process, "python", "-c", ASK, "/health/live"), "live")
        status = Path(f"/proc/{process}/status").read_text().split()
        assert status[status.index("Uid:") + 1] == "10001"
        assert int(status[status.index("CapBnd:") + 1], 16) == 0
        assert inside(process, "touch", "/x") == ""
        assert not (root / "x").exists()
        assert inside(process, "offhook", "--version") == "offhook 0.1.0\n"
        assert inside(process, "python", "-c", ASK, url()).startswith("200 ")
        assert [path.stat().st_size > 0 for path in (state / "journal").glob("*.journal")] == [True]
        os.kill(process, 15)
        running.wait(30)  # it stops by itself
    finally:
        running.kill()
        running.wait()
    print("runs read-only, without network and rights, as user 10001; took a callback; stopped")


def receivers(parent: int) -> list[int]:
    """The receivers among the descendants of a process."""
    found = []
    for each in children(parent):
        if b"/opt/offhook/bin/offhook" in Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0"):
            found.append(each)
        else:
            found += receivers(each)
    return found


def inside(process: int, *command: str) -> str:
    """Run a command in the container, as its user. Returns its output, empty if it fails."""
    enter = ["nsenter", "--target", str(process), "--all", "setpriv", "--reuid", "10001"]
    enter += ["--regid", "10001", "--clear-groups", *command]
    done = subprocess.run(enter, env=CLEAN, stdout=subprocess.PIPE, check=False)
    return done.stdout.decode() if done.returncode == 0 else ""


if __name__ == "__main__":
    main()
