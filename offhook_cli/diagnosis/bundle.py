"""The bundle for a bug report: an archive of what the doctor saw, without secrets."""

import io
import json
import os
import platform
import sys
import tarfile
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from offhook_cli.diagnosis.examination import Examination
from offhook_cli.redaction import (
    Redactor,
    file_settings,
    redacted,
    secrets_in,
    sources,
)

_FOLDER = "offhook-doctor"
# What INFO says of a server that helps to understand it.
_INFO = (
    *("redis_version", "valkey_version", "redis_mode", "uptime_in_seconds", "role"),
    *("connected_clients", "connected_slaves", "used_memory", "maxmemory", "maxmemory_policy"),
    *("aof_enabled", "aof_last_write_status", "rdb_last_bgsave_status", "loading"),
)


def write_bundle(path: Path, seen: Examination) -> None:
    """Write a new archive (.tar.gz) that only its owner can read.

    Raises:
        OSError: it exists, or cannot be written.
    """
    redactor = Redactor(secrets_in(sources(seen.settings), all_texts=True), numbers=True)
    documents = {
        "doctor.json": seen.diagnosis.with_sentences(redactor.text).as_dict(),
        "configuration.json": _configuration(seen),
        "status.json": redactor.values(_counts(seen)),
        "versions.json": _versions(seen),
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, document in documents.items():
            content = json.dumps(document, indent=2, default=str).encode()
            member = tarfile.TarInfo(f"{_FOLDER}/{name}")
            member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(content))


def _configuration(seen: Examination) -> Any:
    if seen.settings is not None:
        return redacted(seen.settings.model_dump(), checked=True)
    return redacted(file_settings(), checked=False)


def _counts(seen: Examination) -> Any:
    status = seen.status
    if status is None:
        return None
    found = status.as_dict()
    names = ("handlers", "partitions", "scheduler", "unserved", "abandoned", "leftover", "refused")
    workers = {queue: len(each) for queue, each in status.workers.items()}
    return {name: found[name] for name in names} | {"workers": workers}


def _versions(seen: Examination) -> Any:
    packages = {each.metadata["Name"]: each.version for each in distributions()}
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "servers": {
            setting: {name: info[name] for name in _INFO if name in info}
            for setting, info in seen.servers.items()
        },
        "packages": dict(sorted(packages.items(), key=lambda each: str(each[0]).lower())),
    }
