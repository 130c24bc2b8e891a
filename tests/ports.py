"""TCP ports for the servers of tests.

A test that stops its server starts it again on the same port, and one that wants no server to
answer keeps the port unused. So no port is given out twice: each process of pytest-xdist has a
range of its own, and goes through it in sequence.
"""

import itertools
import os
import socket
from contextlib import suppress
from random import SystemRandom

_FIRST, _EACH = 20_000, 1_500  # below 32,768, where ports of outgoing connections begin
_WORKERS = 8

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_offsets = itertools.count(SystemRandom().randrange(_EACH))  # other runs of pytest may be active


def free_port() -> int:
    """Return a port that is free, and that this process has not had."""
    while True:
        port = _FIRST + _worker * _EACH + next(_offsets) % _EACH
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
