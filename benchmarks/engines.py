"""The engines: how to give each one work, start it and watch it, Offhook and its peers alike."""

import asyncio
import contextlib
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.backlog import fill, positions
from benchmarks.machine import MEASURED, OTHER, PEERS, SECRET, Running, offhook
from offhook.settings import Settings, load_settings

_FOLDER = Path(__file__).parent / "peers"
OFFHOOK = "Offhook"
UNFOLDED = "Offhook without folding calls"


@dataclass(frozen=True)
class Engine:
    """A peer.

    Attributes:
        environment: its folder in var/peers, or `node`.
        module: the name of its file.
        work: the command of one worker process, in the environment's `bin/`; `{n}` stands for the
            concurrency.
    """

    environment: str
    module: str
    work: Sequence[str]


ENGINES: Mapping[str, Engine] = {
    "RQ": Engine("rq", "on_rq", ("python", "on_rq.py")),
    "RQ, forking": Engine("rq", "on_rq", ("rq", "worker", "events", "--quiet", "--url", "{redis}")),
    "Celery": Engine(
        "celery",
        "on_celery",
        ("celery", "-A", "on_celery", "worker", "--pool=solo", "--loglevel=ERROR"),
    ),
    "Celery, threads": Engine(
        "celery",
        "on_celery",
        ("celery", "-A", "on_celery", "worker", "--pool=threads", "-c", "{n}", "--loglevel=ERROR"),
    ),
    "Celery, gevent": Engine(
        "celery",
        "on_celery",
        ("celery", "-A", "on_celery", "worker", "--pool=gevent", "-c", "{n}", "--loglevel=ERROR"),
    ),
    "dramatiq": Engine(
        "dramatiq", "on_dramatiq", ("dramatiq", "on_dramatiq", "-p", "1", "-t", "{n}")
    ),
    "huey": Engine(
        "huey", "on_huey", ("huey_consumer", "on_huey.huey", "-w", "{n}", "-k", "thread")
    ),
    "taskiq": Engine(
        "taskiq",
        "on_taskiq",
        ("taskiq", "worker", "on_taskiq:broker", "-w", "1", "--max-async-tasks", "{n}"),
    ),
    "SAQ": Engine("saq", "on_saq", ("saq", "on_saq.settings")),
    "arq": Engine("arq", "on_arq", ("arq", "on_arq.WorkerSettings")),
    "BullMQ": Engine("node", "on_bullmq", ("node", "on_bullmq.js", "work")),
}


class Bench:
    """One measurement: an empty server, an engine by its name, and what it has delivered.

    Args:
        do: what a delivery does: nothing, wait, post, record or linger (see `peers/job.py`).
        concurrency: concurrent deliveries.
        target: the URL that `post` posts to.
        more: more of Offhook's configuration: tables of other handlers.
    """

    def __init__(
        self,
        redis_url: str,
        do: str,
        concurrency: int,
        folder: Path,
        target: str = "",
        more: str = "",
    ) -> None:
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        self.redis_url = redis_url
        self.concurrency = concurrency
        self.folder = folder
        self._progress = folder / "progress"
        self._progress.write_bytes(bytes(8))
        self.records = folder / "records"
        self.records.touch()
        self.log = folder / "log"
        self.environment = {
            "REDIS_URL": redis_url,
            "DO": do,
            "CONCURRENCY": str(concurrency),
            "PROGRESS": str(self._progress),
            "RECORDS": str(self.records),
            "TARGET": target,
            "NODE_PATH": str(PEERS / "node_modules"),
            "OFFHOOK_CONFIG": str(folder / "offhook.toml"),
        }
        use = (
            f'use = "webhook"\n[handlers.crm.options]\nurl = {target!r}\nprivate_networks = true\n'
            if do == "post"
            else f'use = "benchmarks.handlers:{do}"\n'
        )
        (folder / "offhook.toml").write_text(
            f"secret = {SECRET!r}\nredis_url = {redis_url!r}\nprocesses = 1\n"
            f"[handlers.crm]\nconcurrency = {concurrency}\nretry = [1, 1, 1]\n{use}{more}"
        )

    def fill(self, name: str, count: int, per_call: int = 1, rate: float = 0) -> None:
        """Fill the inbox, or let the engine's own producer enqueue events from the other core.

        Args:
            rate: events per second, for peers; 0: as fast as possible.
        """
        if name in (OFFHOOK, UNFOLDED):
            os.environ["OFFHOOK_CONFIG"] = self.environment["OFFHOOK_CONFIG"]
            asyncio.run(_fill(load_settings(), count, per_call))
            return
        engine = ENGINES[name]
        numbers = [str(count), str(per_call), str(rate)]
        if engine.environment == "node":
            command = ["node", str(_FOLDER / f"{engine.module}.js"), "enqueue", *numbers]
        else:
            command = [
                _bin(engine, "python"),
                str(_FOLDER / "producer.py"),
                engine.module,
                *numbers,
            ]
        self._start(command, OTHER).wait(600)

    def work(self, name: str) -> Running:
        """Start `offhook work`, or one worker process of a peer, on the measured core."""
        if name == OFFHOOK:
            return Running(offhook("work"), self.environment, self.log, MEASURED)
        if name == UNFOLDED:
            alone = [sys.executable, "-m", "benchmarks.one_server"]
            return Running(alone, self.environment, self.log, MEASURED)
        engine = ENGINES[name]
        words = [w.format(n=self.concurrency, redis=self.redis_url) for w in engine.work]
        if engine.environment == "node":
            return self._start(words, MEASURED)
        return self._start([_bin(engine, words[0]), *words[1:]], MEASURED)

    def _start(self, command: list[str], core: int) -> Running:
        environment = self.environment | {"PYTHONPATH": str(_FOLDER)}
        return Running(command, environment, self.log, core, _FOLDER)

    def delivered(self) -> int:
        """Return the number of deliveries so far."""
        return int(struct.unpack("<Q", self._progress.read_bytes())[0])

    def rate(self, worker: Running, count: int, patience: float = 120.0) -> tuple[float, float]:
        """Return deliveries per second and per CPU-second, without the first tenth of `count`.

        With it, if all are delivered by the time that this process looks.
        """
        first, began, computed = 0, time.perf_counter(), 0.0
        if (tenth := self.wait(worker, count // 10, patience)) < count:
            first, began, computed = tenth, time.perf_counter(), worker.cpu()
        last = self.wait(worker, count, patience)
        seconds = time.perf_counter() - began
        return (last - first) / seconds, (last - first) / max(0.01, worker.cpu() - computed)

    def wait(self, worker: Running, count: int, patience: float) -> int:
        """Wait for this many deliveries, at most `patience` seconds. Return their number.

        Raises:
            RuntimeError: the worker has ended.
            TimeoutError: with the end of the worker's log.
        """
        deadline = time.monotonic() + patience
        while (now := self.delivered()) < count:
            worker.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{now} of {count} delivered: {self.log.read_text()[-2000:]}")
            time.sleep(0.005)
        return now

    def lines(self) -> list[tuple[str, int, float, float]]:
        """Return the recorded deliveries: call, number, time accepted, time delivered."""
        return [
            (call, int(number), float(accepted), float(delivered))
            for call, number, accepted, delivered in map(
                str.split, self.records.read_text().splitlines()
            )
        ]


@contextlib.contextmanager
def bench(
    redis_url: str, do: str, concurrency: int, target: str = "", more: str = ""
) -> Iterator[Bench]:
    """Yield a measurement with a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        yield Bench(redis_url, do, concurrency, Path(folder), target, more)


def handlers(count: int, *, interested: bool) -> str:
    """Return the configuration of more handlers that do nothing, or that want no event at all."""
    filters = "" if interested else 'extensions = ["none"]\n'
    return "".join(
        f'[handlers.more{number}]\nuse = "benchmarks.handlers:nothing"\n{filters}'
        for number in range(count)
    )


@contextlib.contextmanager
def ended(process: Running) -> Iterator[Running]:
    """Yield the process, and stop it at the end."""
    try:
        yield process
    finally:
        process.stop()


def installed(name: str) -> bool:
    """Return whether the engine can run: peers need `python -m benchmarks.peers`."""
    if name in (OFFHOOK, UNFOLDED):
        return True
    engine = ENGINES[name]
    if engine.environment == "node":
        return (PEERS / "node_modules").exists()
    return (PEERS / engine.environment).exists()


def _bin(engine: Engine, name: str) -> str:
    return str(PEERS / engine.environment / "bin" / name)


async def _fill(settings: Settings, count: int, per_call: int) -> None:
    await positions(settings)
    await fill(settings, count, per_call=per_call)
