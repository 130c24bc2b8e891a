"""What a process has loaded: its version, which files have changed since, which plugins are broken.

A version is a digest of the files, so it says whether those of another machine or container differ,
too; times of changes do not.
"""

import linecache
import os
import socket
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

from offhook.settings import Settings, config_folder, configuration_files

WORK, SERVE, CONSOLE = "offhook work", "offhook serve", "offhook console"

_OURS = {"offhook", "offhook_cli", "offhook_console", "receiver", "unifiedapi", "workers"}
_INSTALLED = {"site-packages", "dist-packages"}
_MOST = 3  # files that a sentence names
_UNREADABLE = ""  # instead of a digest: not for this user's eyes


@dataclass(frozen=True)
class Loaded:
    """What a process has loaded.

    Attributes:
        program: `WORK`, `SERVE` or `CONSOLE`.
        pid: of its first process.
        at: when, in ISO 8601.
        folder: where its configuration is.
        files: the digest of each file of the configuration, by its path.
        code: the same of the plugins; only `offhook work` has them.
        broken: a sentence for each plugin that could not be loaded.
    """

    program: str
    host: str
    pid: int
    at: str
    folder: str
    files: dict[str, str]
    code: dict[str, str]
    broken: list[str]

    @property
    def version(self) -> str:
        """A short name of the configuration and, after a hyphen, of the plugins' code."""
        return "-".join(_short(each) for each in (self.files, self.code) if each)

    def runs(self, wanted: "Loaded") -> bool:
        """Return whether this is the version of `wanted`, wherever its files are."""
        return not self.differing(wanted)

    def differing(self, wanted: "Loaded") -> list[str]:
        """The names of the files that are not those of `wanted`."""
        pairs = [(self.files, wanted.files)]
        if self.program == wanted.program == WORK:
            pairs.append((self.code, wanted.code))
        found = []
        for mine, theirs in pairs:
            ours, others = _by_name(mine), _by_name(theirs)
            for name in sorted(ours.keys() | others.keys()):
                one, other = ours.get(name), others.get(name)
                unknown = one and other and _UNREADABLE in (*one, *other)
                if one != other and not unknown:
                    found.append(name)
        return found

    def here(self) -> "Loaded":
        """The same, as this process reports it."""
        return replace(self, pid=os.getpid())


def loaded_now(settings: Settings, broken: Iterable[str] = (), program: str = WORK) -> Loaded:
    """What this process has just loaded.

    Keeps the source of the plugins, so that tracebacks quote the code that runs.

    Args:
        broken: a sentence for each plugin that could not be loaded.
        program: only `offhook work` loads plugins.
    """
    key = _keys(settings)[0]
    sources = _sources(settings) if program == WORK else ()
    return Loaded(
        program=program,
        host=socket.gethostname(),
        pid=os.getpid(),
        at=datetime.now().astimezone().isoformat(timespec="seconds"),
        folder=str(config_folder()),
        files=_digests(configuration_files(), key),
        code=_digests(sources, key),
        broken=[*broken],
    )


def _digests(paths: Iterable[Path], key: bytes) -> dict[str, str]:
    found = {}
    for path in sorted({*paths}):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError:
            found[str(path)] = _UNREADABLE
            continue
        found[str(path)] = _digest(content, key)
        if path.suffix == ".py":
            lines = content.decode("utf-8", "replace").splitlines(keepends=True)
            # Without a time the entry is never compared with the file.
            linecache.cache[str(path)] = (len(content), None, lines, str(path))
    return found


def _by_name(files: Mapping[str, str]) -> dict[str, list[str]]:
    """The digests by name alone: the folders of another machine may have other names."""
    found = defaultdict(list)
    for path, digest in files.items():
        found[Path(path).name].append(digest)
    return {name: sorted(digests) for name, digests in found.items()}


def _short(files: Mapping[str, str]) -> str:
    names = sorted((Path(path).name, digest) for path, digest in files.items())
    return blake2b(repr(names).encode(), digest_size=4).hexdigest()


def _sources(settings: Settings) -> Iterator[Path]:
    """The modules of the plugins, and what they have imported from their package and folder."""
    from offhook.plugins import plugin_modules  # a receiver needs none of it

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


def newer_files(running: Iterable[Loaded], settings: Settings) -> list[str]:
    """A sentence for each process whose files differ from those here, and for each plugin that one
    could not load.
    """
    keys, host = _keys(settings), socket.gethostname()
    sentences: dict[tuple[object, ...], str] = {}
    for loaded in running:
        here = loaded.host == host
        differing = [
            path.name
            for name, digest in (loaded.files | loaded.code).items()
            if (path := _counterpart(name, loaded, here=here)) and _differs(path, digest, keys)
        ]
        if differing:  # several processes of a receiver say the same
            said = loaded.program, loaded.host, *differing
            sentences.setdefault(said, _sentence(loaded, differing, here=here))
        for each in loaded.broken:
            sentences[each,] = f"{each}; correct it and run `offhook reload`"
    return [*sentences.values()]


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
    return digest not in {_UNREADABLE, *(_digest(content, key) for key in keys)}


def _sentence(loaded: Loaded, names: list[str], *, here: bool) -> str:
    files = some(names)
    at = f"{datetime.fromisoformat(loaded.at):%Y-%m-%d %H:%M:%S}"
    if here:
        has = "has" if len({*names}) == 1 else "have"
        return (
            f"{files} {has} changed since `{loaded.program}` loaded its files ({at}): "
            "`offhook reload` applies what is new"
        )
    return (
        f"`{loaded.program}` on {loaded.host}, version of {at}, does not run the {files} that is "
        "here: copy what is newer to the other machine, then run `offhook reload`"
    )


def some(names: Iterable[str]) -> str:
    """These names in a sentence; a few of them if they are many."""
    names = [*dict.fromkeys(names)]
    more = len(names) - _MOST
    shown = names if more <= 0 else [*names[:_MOST], f"{more} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _keys(settings: Settings) -> list[bytes]:
    """What digests are keyed with, so that none helps to guess a secret."""
    secrets = (settings.secret, settings.previous_secret)
    return [each.get_secret_value().encode()[:64] for each in secrets if each]


def _digest(content: bytes, key: bytes) -> str:
    return blake2b(content, key=key, digest_size=8).hexdigest()
