"""What a drill needs of the machine; without it, it says so and ends."""

import os
import shutil
from collections.abc import Mapping


def need_root_and(programs: Mapping[str, str]) -> None:
    """End the program unless it is root's and these programs are installed.

    Args:
        programs: the Debian package of each, by its name.

    Raises:
        SystemExit: otherwise, with what to do.
    """
    if os.geteuid() != 0:
        raise SystemExit("This needs root.")
    packages = {package for name, package in programs.items() if not shutil.which(name)}
    if packages:
        raise SystemExit(f"First, run: apt-get install {' '.join(sorted(packages))}")
