"""Install the peers, of the versions in requirements/ and package.json, beside the project.

    python -m benchmarks.peers

They go to var/peers, which git ignores: a virtual environment for each, since they agree on no
version of redis-py, and node_modules when there is npm.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import PEERS

_HERE = Path(__file__).parent


def main() -> None:
    PEERS.mkdir(parents=True, exist_ok=True)
    for requirements in sorted((_HERE / "requirements").glob("*.txt")):
        environment = PEERS / requirements.stem
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [
            str(environment / "bin/python"),
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--quiet",
        ]
        subprocess.run([*pip, "install", "-r", str(requirements)], check=True)
    npm = shutil.which("npm")
    if npm is None:
        print("There is no npm: those that run on Node.js are left out.")
        return
    shutil.copy(_HERE / "package.json", PEERS)
    subprocess.run([npm, "install", "--silent", "--no-package-lock"], cwd=PEERS, check=True)


if __name__ == "__main__":
    main()
