"""The first operator's walk: every command of docs/install.md, on a fresh Debian 13 with systemd.

    python -m tests.drills.walk [--mirror URL]

Needs root, mmdebstrap, systemd-container and Debian's mirror. The machine is a container of
systemd-nspawn on this machine's network, so its ports (443, 6379, 8080, 9090, ...) must be free.
Its certificate is of an authority of its own: `certbot` needs a name that the Internet knows.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.drills.needs import need_root_and
from tests.installation import ROOT, wait_until
from tests.processes import children

NAME = "offhook.example.com"
SHARE = "cd /opt/offhook/share/offhook"
BY_HAND = "certbot certonly"  # the block that a test cannot run
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin", "HOME": "/root", "LANG": "C.UTF-8"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    mirror = parser.parse_args().mirror
    need_root_and({"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container"})
    with tempfile.TemporaryDirectory(prefix="walk-") as name:
        machine = Path(name, "machine")
        make(machine, mirror)
        with booted(machine) as leader:
            walk(leader, machine)
            check(leader, "installed")
        with booted(machine) as leader:
            check(leader, "after a reboot")


def make(machine: Path, mirror: str) -> None:
    """Make a minimal Debian with the wheel of this checkout in /root."""
    command = ["mmdebstrap", "--variant=important", "--include=systemd-sysv,dbus,ca-certificates"]
    # How this machine reaches the mirror.
    settings = sorted(Path("/etc/apt/apt.conf.d").glob("99*"))
    command += [f"--aptopt={each}" for each in settings]
    subprocess.run([*command, "trixie", str(machine), mirror], check=True)
    for path in [*settings, Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt")]:
        if path.exists():
            shutil.copy(path, machine / path.relative_to("/"))
    (machine / "etc/hosts").write_text(f"127.0.0.1 localhost {NAME}\n")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(machine / "root")]
    environment = os.environ | {"SETUPTOOLS_SCM_PRETEND_VERSION": "0.1.0"}
    subprocess.run(build, cwd=ROOT, env=environment, check=True)
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    trusted = machine / "usr/local/share/ca-certificates/walk.crt"
    authority.cert_pem.write_to_path(str(trusted))
    issued.private_key_pem.write_to_path(str(machine / "root/privkey.pem"))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(machine / "root/fullchain.pem"), append=True)


@contextmanager
def booted(machine: Path) -> Iterator[int]:
    """Boot the machine; the value is its first process."""
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"]
    command += ["--console=pipe", "--resolv-conf=copy-host", "--directory", str(machine)]
    environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    quiet = subprocess.DEVNULL
    running = subprocess.Popen(command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        wait_until(lambda: bool(children(running.pid)), "the machine starts")
        leader = children(running.pid)[0]
        wait_until(
            lambda: "running" in run(leader, "systemctl is-system-running || true"), "it is up", 120
        )
        yield leader
    finally:
        running.send_signal(signal.SIGTERM)  # an orderly shutdown
        running.wait(120)


def run(leader: int, script: str) -> str:
    """Run commands in the machine, and return what they print."""
    command = ["nsenter", "--target", str(leader), "--all", "bash", "-e", "-s"]
    environment = CLEAN | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        input=script,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def walk(leader: int, machine: Path) -> None:
    """Run the blocks of the page in order."""
    page = (ROOT / "docs" / "install.md").read_text()
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        began = time.monotonic()
        for block in re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
            here = SHARE if (machine / "opt/offhook/share/offhook").exists() else "cd /root"
            if BY_HAND in block:
                block = "update-ca-certificates\ninstall -D -t /etc/ssl/offhook /root/*.pem\n"
            run(leader, f"{here}\n{block}")
        print(f"{time.monotonic() - began:6.1f} s  {section.splitlines()[0]}", flush=True)


def check(leader: int, when: str) -> None:
    """Everything runs, and what was stored is there."""
    diagnosis = ""

    def is_well() -> bool:
        nonlocal diagnosis
        diagnosis = run(leader, "offhook doctor || true")
        return "0 failures, 0 warnings" in diagnosis

    wait_until(is_well, "the doctor finds nothing", 60)
    assert "0 loaded units" in run(leader, "systemctl --failed --no-pager")
    assert "main/" in run(leader, "offhook calls")
    run(leader, f"curl --silent --fail https://{NAME}/health/live")
    print(f"{when}: {diagnosis.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
