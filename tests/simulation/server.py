"""The Redis server of a simulation: fakeredis with the real Lua."""

import copy
from importlib.resources import files
from typing import Any

from fakeredis import FakeServer
from fakeredis._helpers import SimpleError
from fakeredis._socket._fakesocket import FakeSocket
from fakeredis.commands_mixins import scripting_mixin
from redis import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from offhook.inbox.scripts import script
from tests.simulation.faults import SCRIPTS

_INFO = b"# Memory\r\nused_memory:%d\r\nmaxmemory:100\r\n"


class _Socket(FakeSocket):
    """Keeps compiled scripts, and answers INFO, which fakeredis does not know."""

    used = 10

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server, 0, client_class=Redis)
        self.answer: Any = None
        self.compiled: dict[bytes, Any] = {}

    def put_response(self, msg: Any) -> None:
        self.answer = msg

    def _decode_error(self, error: SimpleError) -> Any:
        text = error.value
        for start, kind in (("NOSCRIPT", NoScriptError), ("OOM", OutOfMemoryError)):
            if text.startswith(start):
                return kind(text)
        return ResponseError(text)

    def _lua_redis_call(self, lua_runtime: Any, expected: Any, op: bytes, *args: Any) -> Any:
        if op == b"INFO":
            return _INFO % self.used
        func, signature = self._name_to_func(op.decode().lower())
        new_args = [scripting_mixin._convert_redis_arg(each) for each in args]
        result = self._run_command(func, signature, new_args, True)
        if op == b"XREAD" and not result:
            result = None  # as a real server; fakeredis answers an empty list
        return self._convert_redis_result(lua_runtime, result)

    def eval(self, script: bytes, numkeys: int, *keys_and_args: bytes) -> Any:
        server: Any = self._server
        lua = self._get_server_runtime(server)
        function = self.compiled.get(script)
        if function is None:
            function = self.compiled[script] = lua.compile(script)
        server._lua_current_socket[0] = self
        self._script_resp = 2
        server._lua_set_keys_argv(
            lua.table_from(keys_and_args[:numkeys]), lua.table_from(keys_and_args[numkeys:])
        )
        try:
            result = function()
        finally:
            self._script_resp = None
        return self._convert_lua_result(result, nested=False)


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
        self.execute("FLUSHALL")
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
        self._socket._process_command([_encoded(each) for each in fields])
        return self._socket.answer

    def flush_scripts(self) -> None:
        self._socket._server.script_cache = {}

    def snapshot(self) -> Any:
        return copy.deepcopy(self.database._dict)

    def restore(self, snapshot: Any) -> None:
        database = self.database
        database._dict.clear()
        database._dict.update(snapshot)
        ends = [(item.expireat, key) for key, item in snapshot.items() if item.expireat]
        database._expiry_heap[:] = sorted(ends)


def _encoded(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return repr(value).encode()
    return str(value).encode()
