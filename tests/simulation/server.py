"""The Redis server of a simulation: fakeredis with the real Lua."""

import copy
import json
import time
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from fakeredis import FakeServer
from fakeredis._commands import COMMANDS_WITH_SUB, Key
from fakeredis._core._database import CommandItem
from fakeredis._helpers import SimpleError, SimpleString
from fakeredis._msgs import FLAG_DO_NOT_CREATE, FLAG_LEAVE_EMPTY_VAL
from fakeredis._socket._fakesocket import FakeSocket
from fakeredis._socket._resp import convert_to_resp2
from fakeredis.commands_mixins.scripting_mixin import _convert_redis_arg
from redis import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from offhook.inbox.scripts import script
from tests.simulation.faults import SCRIPTS

_PLAIN = frozenset((bytes, int, type(None)))  # types of answers
_INFO = b"# Memory\r\nused_memory:%d\r\nmaxmemory:100\r\n"


class _Command:
    """One command with so many arguments: fakeredis's function, and how it takes them."""

    def __init__(self, socket: "_Socket", name: str, count: int) -> None:
        self.function: Any
        self.function, signature = socket._name_to_func(name)
        signature.check_arity([b""] * count, socket.version)
        types: list[Any] = [*signature.fixed, *signature.repeat * count][:count]
        self.decoded = [
            (at, kind.decode)
            for at, kind in enumerate(types)
            if kind is not bytes and not isinstance(kind, Key)
        ]
        self.keys = [(at, kind.type_) for at, kind in enumerate(types) if isinstance(kind, Key)]
        self.needed = [  # keys without which the answer is always the same
            (at, convert_to_resp2(kind.missing_return))
            for at, kind in enumerate(types)
            if isinstance(kind, Key) and kind.missing_return is not Key.UNSPECIFIED
        ]
        self.creates = FLAG_DO_NOT_CREATE not in signature.flags
        self.keeps_empty = FLAG_LEAVE_EMPTY_VAL in signature.flags


class _Socket(FakeSocket):
    """Runs the commands of fakeredis without what a simulation does not need.

    It has no other connections, users, notifications, and transactions of its own. It keeps
    compiled scripts, and answers INFO, which fakeredis does not know.
    """

    used = 10

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server, 0, client_class=Redis)
        self._lua = self._get_server_runtime(server)
        self._compiled: dict[bytes, Any] = {}  # scripts by SHA
        self._set_arguments = server._lua_set_keys_argv  # type: ignore[attr-defined]
        self._lua.globals()[b"redis"][b"call"] = self._call
        self._lua.globals()[b"cjson"][b"decode"] = self._decoded
        self.changes: dict[bytes, int] = {}  # key -> how often it was changed
        self._db.notify_watch = self._changed  # type: ignore[method-assign]
        self._commands: dict[tuple[str, int], _Command] = {}

    def _changed(self, key: bytes) -> None:
        self.changes[key] = self.changes.get(key, 0) + 1

    def run(self, name: str, arguments: Sequence[bytes]) -> Any:
        """Run a command. Return its answer.

        Raises:
            SimpleError: it is the answer.
        """
        if name == "get":  # fakeredis takes its time, and this is every third command
            item = self._db.get(arguments[0])
            return None if item is None else item.value
        command = self._commands.get((name, len(arguments)))
        if command is None:
            command = self._commands[name, len(arguments)] = _Command(self, name, len(arguments))
        db = self._db
        given: list[Any] = list(arguments)
        for at, missing in command.needed:
            if given[at] not in db:
                return missing
        for at, decode in command.decoded:
            given[at] = decode(given[at])
        items = []
        for at, kind in command.keys:
            item = db.get(given[at])
            default = None
            if kind is not None:
                if item is None:
                    if command.creates and kind is not bytes:
                        default = kind()
                elif type(item.value) is not kind:
                    raise SimpleError("WRONGTYPE Operation against a key of another kind")
            given[at] = CommandItem(given[at], db, item, default=default)
            items.append(given[at])
        try:
            result = command.function(*given)
        finally:
            for item in items:
                item.writeback(remove_empty_val=not command.keeps_empty)
        return result if type(result) in _PLAIN else convert_to_resp2(result)

    def error(self, error: SimpleError) -> Exception:
        """What redis-py makes of an error that a server answers."""
        text = error.value
        for start, kind in (("NOSCRIPT", NoScriptError), ("OOM", OutOfMemoryError)):
            if text.startswith(start):
                return kind(text)
        return ResponseError(text)

    def evalsha(self, sha: bytes, numkeys: int, *arguments: bytes) -> Any:
        """Run a script, which need not be compiled or looked at for mistakes each time."""
        script = self._server.script_cache.get(sha)
        if script is None:
            raise SimpleError("NOSCRIPT No matching script.")
        function = self._compiled.get(sha)
        if function is None:
            function = self._compiled[sha] = self._lua.compile(script)
        table = self._lua.table_from
        self._set_arguments(table(arguments[:numkeys]), table(arguments[numkeys:]))
        result = function()
        return result if type(result) in _PLAIN else self._convert_lua_result(result, nested=False)

    def _call(self, name: bytes, *arguments: Any) -> Any:
        """In place of `redis.call`."""
        if name == b"INFO":
            return _INFO % self.used
        given = [each if type(each) is bytes else _convert_redis_arg(each) for each in arguments]
        result = self.run(_words(name, given), given)
        kind = type(result)
        if kind is bytes or kind is int:
            return result
        if result is None or (name == b"XREAD" and not result):
            return False  # fakeredis answers an empty list, and a real server does not
        return self._convert_redis_result(self._lua, result)

    def _decoded(self, text: bytes) -> Any:
        """In place of `cjson.decode`."""
        try:
            return self._table(json.loads(text))
        except ValueError as error:
            raise SimpleError(f"ERR {error}") from error

    def _table(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list):
            return self._lua.table_from([self._table(each) for each in value])
        if isinstance(value, dict):
            return self._lua.table_from({k.encode(): self._table(v) for k, v in value.items()})
        return value


@cache
def _lower(name: bytes) -> str:
    return name.decode().lower()


def _words(name: bytes, arguments: list[bytes]) -> str:
    """The name of a command, which may have two words; takes the second from the arguments."""
    lower = _lower(name)
    return f"{lower} {_lower(arguments.pop(0))}" if lower in COMMANDS_WITH_SUB else lower


_SCRIPTS = [
    each.name.removesuffix(".lua")
    for each in files("offhook.inbox.scripts").iterdir()
    if each.name.endswith(".lua")
]
_SOCKET: list[_Socket] = []


class Server:
    """One server, which executes one command at a time."""

    def __init__(self) -> None:
        # Lua runtimes are expensive: one for all simulations, one after the other.
        if not _SOCKET:
            _SOCKET.append(_Socket(FakeServer(server_type="valkey", version=(8,))))
        self._socket = _SOCKET[0]
        self._socket.used = 10
        self._socket.changes.clear()
        self._restored = 0
        self._socket._db._dict.clear()
        self._socket._db._expiry_heap.clear()
        self.flush_scripts()
        for name in _SCRIPTS:
            sha = self.execute("SCRIPT", "LOAD", script(name))
            SCRIPTS[sha.decode()] = name

    @property
    def database(self) -> Any:
        return self._socket._db

    @property
    def full(self) -> bool:
        return self._socket.used > 50

    @full.setter
    def full(self, full: bool) -> None:
        self._socket.used = 99 if full else 10

    def execute(self, *fields: Any) -> Any:
        """Execute a command. Return its answer, or an exception that it answered."""
        if fields[0] == "WATCH":
            return self.versions(fields[1:])
        name, *arguments = [each if type(each) is bytes else _encoded(each) for each in fields]
        words = _words(name, arguments)
        self._socket._db.time = time.time()
        try:
            return _decoded(self._socket.run(words, arguments))
        except SimpleError as error:
            return self._socket.error(error)

    def versions(self, names: Iterable[str]) -> dict[str, object]:
        """What is different once these keys have changed."""
        return {name: (self._restored, self._socket.changes.get(name.encode())) for name in names}

    def has(self, key: str) -> bool:
        """Return whether a key exists."""
        return key.encode() in self.database._dict

    def flush_scripts(self) -> None:
        self._socket._server.script_cache = {}

    def snapshot(self) -> Any:
        return copy.deepcopy(self.database._dict)

    def restore(self, snapshot: Any) -> None:
        self._restored += 1
        database = self.database
        database._dict.clear()
        database._dict.update(snapshot)
        ends = [(item.expireat, key) for key, item in snapshot.items() if item.expireat]
        database._expiry_heap[:] = sorted(ends)


def _encoded(value: Any) -> bytes:
    if type(value) is float:
        return repr(value).encode()
    return str(value).encode()


def _decoded(result: Any) -> Any:
    """As a client returns it."""
    kind = type(result)
    if kind is list:
        return [each if type(each) in _PLAIN else _decoded(each) for each in result]
    return result.value if kind is SimpleString else result
