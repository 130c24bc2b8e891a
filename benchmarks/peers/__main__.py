"""Install the peers, in the versions of requirements/ and package.json, into var/peers.

    python -m benchmarks.peers

Git ignores var/peers. Each peer has its own virtual environment, because they need different
versions of redis-py; peers on Node.js share node_modules.
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
        pip = (environment / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet")
        subprocess.run([*pip, "install", "-r", requirements], check=True)
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not installed: skipping the peers that run on Node.js.")
        return
    shutil.copy(_HERE / "package.json", PEERS)
    subprocess.run([npm, "install", "--silent", "--no-package-lock"], cwd=PEERS, check=True)


if __name__ == "__main__":
    main()
