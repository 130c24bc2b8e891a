"""Where the configuration is, and the settings whose values are in files of their own."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from offhook.settings.faults import read_secret

DEFAULT_FILE = "offhook.toml"


def config_path() -> Path:
    """The configuration file: `$OFFHOOK_CONFIG`, or `offhook.toml` in the working directory."""
    return Path(os.environ.get("OFFHOOK_CONFIG") or DEFAULT_FILE)


def config_folder() -> Path:
    """The folder of the configuration file, where its relative paths start."""
    return config_path().parent.absolute()


def read_files(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Replace each `NAME_file` by `NAME`, read from that file."""
    values = dict(values)
    for name in names:
        path = values.pop(f"{name}_file", None)
        if path is not None and name not in values:
            values[name] = read_secret(path, config_folder())
    return values
