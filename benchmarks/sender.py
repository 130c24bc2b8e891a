"""A sender in a process of its own: callbacks at a steady rate, then what became of them, as JSON.

    python -m benchmarks.sender PORT RATE SECONDS EXTENSION ...

An extension is such as 0003*210. Each callback is a call of its own.
"""

import json
import sys
from dataclasses import asdict

from benchmarks.load import callbacks, drive
from benchmarks.machine import SECRET
from offhook.callback_url import callback_url


def urls(extensions: list[str]) -> list[str]:
    """The callback URLs of extensions of the PBX `main`."""
    return [callback_url("", SECRET, "main", each, "dial-in") for each in extensions]


if __name__ == "__main__":
    port, rate, seconds, *extensions = sys.argv[1:]
    requests = callbacks(urls(extensions))
    outcome = drive(int(port), requests, float(seconds), connections=16, rate=float(rate))
    print(json.dumps(asdict(outcome)))
