"""What `offhook work` has loaded: which files have changed since, and which plugins are broken.

Each worker keeps a digest of the files in its record in Redis. A digest says whether the files of
another machine or container differ, too; times of changes do not.
"""

import json
import linecache
import os
import socket
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from redis import Redis
from rq.worker_registration import get_keys

from offhook.plugins import plugin_modules
from offhook.settings import Settings, config_folder, config_path, tenant_files

FIELD = "offhook"  # of a worker's record, beside those of RQ
_OURS = {"offhook", "offhook_cli", "receiver", "unifiedapi", "workers"}
_INSTALLED = {"site-packages", "dist-packages"}
_MOST = 3  # files that a sentence names


@dataclass(frozen=True)
class Loaded:
    """What an `offhook work` has loaded.

    Attributes:
        pid: of its first process.
        at: when, in ISO 8601.
        folder: where its configuration is.
        files: the digest of each file, by its path.
        broken: a sentence for each plugin that could not be loaded.
    """

    host: str
    pid: int
    at: str
    folder: str
    files: dict[str, str]
    broken: list[str]

    def as_json(self) -> str:
        """What a worker keeps in its record."""
        return json.dumps(asdict(self))


def loaded_now(settings: Settings, broken: Iterable[str] = ()) -> Loaded:
    """What this process has just loaded.

    Keeps the source of the plugins, so that tracebacks quote the code that runs.

    Args:
        broken: a sentence for each plugin that could not be loaded.
    """
    key, files = _keys(settings)[0], {}
    for path in sorted({*_configuration(), *_sources(settings)}):
        with suppress(OSError):
            content = path.read_bytes()
            files[str(path)] = _digest(content, key)
            if path.suffix == ".py":
                lines = content.decode("utf-8", "replace").splitlines(keepends=True)
                # Without a time the entry is never compared with the file.
                linecache.cache[str(path)] = (len(content), None, lines, str(path))
    at = datetime.now().astimezone().isoformat(timespec="seconds")
    return Loaded(socket.gethostname(), os.getpid(), at, str(config_folder()), files, [*broken])


def _configuration() -> Iterator[Path]:
    """The configuration, and the files that settings such as `secret_file` name."""
    for path in (config_path().absolute(), *tenant_files()):
        yield path
        with suppress(OSError, ValueError):
            yield from _named(tomllib.loads(path.read_text("utf-8")))
    for name, value in os.environ.items():
        if name.startswith("OFFHOOK_") and name.endswith("_FILE"):
            yield config_folder() / value


def _named(table: Mapping[str, Any]) -> Iterator[Path]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _named(value)
        elif key.endswith("_file") and isinstance(value, str):
            yield config_folder() / value


def _sources(settings: Settings) -> Iterator[Path]:
    """The modules of the plugins, and what they have imported from their package and folder."""
    wanted = plugin_modules(settings.all_handlers, settings.all_lookups)
    packages = {_top(name) for name in wanted}
    folder = config_folder()
    for name, module in [*sys.modules.items()]:
        path = Path(getattr(module, "__file__", None) or "")
        is_near = folder in path.parents and _INSTALLED.isdisjoint(path.parts)
        if path.suffix == ".py" and _top(name) not in _OURS and (_top(name) in packages or is_near):
            yield path
    for name in wanted - sys.modules.keys():  # it is broken
        with suppress(Exception):  # of the package that it is in
            spec = find_spec(name)
            if spec is not None and spec.origin:
                yield Path(spec.origin)


def _top(module: str) -> str:
    return module.partition(".")[0]


def about_running(rq: Redis, settings: Settings) -> list[str]:
    """A sentence for each running `offhook work` whose files differ from those here, and for each
    plugin that one could not load.
    """
    keys, host = _keys(settings), socket.gethostname()
    sentences = []
    for loaded in _running(rq):
        here = loaded.host == host
        if here and not Path(f"/proc/{loaded.pid}").exists():
            continue  # it was killed, and RQ has not noticed yet
        differing = [
            path.name
            for name, digest in loaded.files.items()
            if (path := _counterpart(name, loaded, here=here)) and _differs(path, digest, keys)
        ]
        if differing:
            sentences.append(_sentence(loaded, differing, here=here))
        sentences += [f"{each}; correct it and restart `offhook work`" for each in loaded.broken]
    return [*dict.fromkeys(sentences)]


def _running(rq: Redis) -> list[Loaded]:
    with rq.pipeline(transaction=False) as pipeline:
        for key in sorted(get_keys(connection=rq)):
            pipeline.hmget(key, FIELD, "death")
        records = {record for record, death in pipeline.execute() if record and not death}
    found = []
    for each in records:
        with suppress(TypeError):  # of another version of Offhook
            found.append(Loaded(**json.loads(each)))
    return sorted(found, key=lambda each: each.at)


def _counterpart(name: str, loaded: Loaded, *, here: bool) -> Path | None:
    """The file here that another machine has as `name`."""
    path = Path(name)
    if here or path.exists():
        return path
    with suppress(ValueError):
        path = config_folder() / path.relative_to(loaded.folder)
    return path if path.exists() else None


def _differs(path: Path, digest: str, keys: Iterable[bytes]) -> bool:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # not for this user's eyes
    return digest not in {_digest(content, key) for key in keys}


def _sentence(loaded: Loaded, names: list[str], *, here: bool) -> str:
    names = [*dict.fromkeys(names)]
    more = len(names) - _MOST
    shown = names if more <= 0 else [*names[:_MOST], f"{more} more"]
    files = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    at = f"{datetime.fromisoformat(loaded.at):%Y-%m-%d %H:%M:%S}"
    if here:
        has = "has" if len(names) == 1 else "have"
        return (
            f"{files} {has} changed since `offhook work` started ({at}): restart it, "
            "or develop with `offhook work --reload`"
        )
    return (
        f"`offhook work` on {loaded.host}, started {at}, does not run the {files} that is here: "
        "copy what is newer to the other machine, and restart `offhook work`"
    )


def _keys(settings: Settings) -> list[bytes]:
    """What digests are keyed with, so that none helps to guess a secret."""
    secrets = (settings.secret, settings.previous_secret)
    return [each.get_secret_value().encode()[:64] for each in secrets if each]


def _digest(content: bytes, key: bytes) -> str:
    return blake2b(content, key=key, digest_size=8).hexdigest()
