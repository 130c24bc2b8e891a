"""All faults of a storm, and which of them may strike at the same time.

Each returns when its effect is over and only the recovery remains.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.chaos import handler_faults, hostile_faults, process_faults, server_faults
from tests.chaos.scene import Scene

_PARTITIONS = 0.3  # of the faults where there is a replica: its rounds are for that
_WORKERS = "supervisor scheduler worker work-horse"


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        touches: what it strikes at: faults that share one of these do not strike at once.
    """

    strike: Callable[[Scene, Random], None]
    touches: frozenset[str]

    @property
    def needs_replica(self) -> bool:
        return "replica" in self.touches


FAULTS: dict[str, Fault] = {
    strike.__name__.replace("_", " "): Fault(strike, frozenset(touches.split()))
    for strike, touches in (
        (process_faults.kill_receiver, "receiver"),
        (process_faults.kill_work_horse, "work-horse"),
        (process_faults.kill_all_work_horses, "work-horse"),
        (process_faults.kill_worker, "worker"),
        (process_faults.kill_all_workers, "worker"),
        (process_faults.kill_scheduler, "scheduler"),
        (process_faults.kill_supervisor, "supervisor"),
        (process_faults.kill_everybody, _WORKERS),
        (process_faults.kill_server, "server"),
        (process_faults.reload, "supervisor"),
        (process_faults.stall_receiver, "receiver"),
        (process_faults.stall_work_horse, "work-horse"),
        (process_faults.stall_worker, "worker"),
        (process_faults.stall_scheduler, "scheduler"),
        (process_faults.stall_supervisor, "supervisor"),
        (process_faults.stall_server, "server"),
        (server_faults.flush_scripts, "scripts"),
        (server_faults.kill_connections, "connections"),
        (server_faults.partition_replica, f"{_WORKERS} server replica"),
        (server_faults.poison_stream, "stream"),
        (server_faults.upgrade, f"{_WORKERS} server"),
        (handler_faults.block_handler, "blocking"),
        (handler_faults.crash_handler, "crashing"),
        (hostile_faults.exhaust_descriptors, "receiver"),
        (hostile_faults.open_idle_connections, "clients"),
        (hostile_faults.flood_one_url, "clients"),
        (hostile_faults.flood_without_token, "clients"),
        (hostile_faults.attack_receiver, "clients"),
    )
}


def choose(dice: Random, *, replicated: bool) -> list[str]:
    """Return one fault or, now and then, two that may strike at once."""
    if replicated and dice.random() < _PARTITIONS:
        return ["partition replica"]
    possible = sorted(
        kind for kind, fault in FAULTS.items() if replicated or not fault.needs_replica
    )
    while True:
        kinds = dice.sample(possible, k=dice.choice([1, 1, 1, 2]))
        touched = [each for kind in kinds for each in FAULTS[kind].touches]
        if len(set(touched)) == len(touched):
            return kinds
