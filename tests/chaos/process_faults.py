"""Faults of processes: each is killed, or stops for some seconds."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.chaos.scene import NothingToStrike, Scene
from tests.installation import OFFHOOK, Installation, start_again, wait_until
from tests.processes import children, title


def kill_receiver(scene: Scene, dice: Random) -> None:
    offhook = scene.offhook
    offhook.receiver.kill()
    offhook.receiver.wait()
    offhook.receiver = offhook.start_receiver()
    wait_until(offhook.is_ready, "the receiver is ready again")


def kill_work_horse(scene: Scene, dice: Random) -> None:
    _send(signal.SIGKILL, _one_of(scene.offhook.work_horses(), dice))


def kill_all_work_horses(scene: Scene, dice: Random) -> None:
    for pid in scene.offhook.work_horses():
        _send(signal.SIGKILL, pid)


def kill_worker(scene: Scene, dice: Random) -> None:
    _send(signal.SIGKILL, _one_of(_workers(scene.offhook), dice))


def kill_all_workers(scene: Scene, dice: Random) -> None:
    for pid in _workers(scene.offhook):
        _send(signal.SIGKILL, pid)


def kill_scheduler(scene: Scene, dice: Random) -> None:
    _send(signal.SIGKILL, scene.offhook.scheduler())


def kill_supervisor(scene: Scene, dice: Random) -> None:
    """Kill the keeper, or the version that it runs: the other one ends by itself."""
    _send(signal.SIGKILL, dice.choice(_supervisors(scene.offhook)))
    scene.offhook.supervisor.wait()
    scene.offhook.supervisor = scene.offhook.start_supervisor()


def kill_everybody(scene: Scene, dice: Random) -> None:
    """Kill the supervisor and all processes below it, as when a machine or a container ends."""
    scene.offhook.kill_supervisors()
    scene.offhook.supervisor = scene.offhook.start_supervisor()


def reload(scene: Scene, dice: Random) -> None:
    """Apply a new version, or fail because another fault strikes."""
    config = Path(scene.offhook.environment["OFFHOOK_CONFIG"])
    config.write_text(f"{config.read_text()}# {dice.random()}\n")
    subprocess.run(
        [OFFHOOK, "reload", "--timeout", "20"],
        env=scene.offhook.environment,
        cwd=scene.offhook.folder,
        capture_output=True,
        check=False,
    )


def kill_server(scene: Scene, dice: Random) -> None:
    server = scene.server()
    server.terminate()
    time.sleep(dice.uniform(0, 6))
    start_again(server)


def stall_receiver(scene: Scene, dice: Random) -> None:
    _stall(scene.offhook.receiver.pid, dice)


def stall_work_horse(scene: Scene, dice: Random) -> None:
    _stall(_one_of(scene.offhook.work_horses(), dice), dice)


def stall_worker(scene: Scene, dice: Random) -> None:
    _stall(_one_of(_workers(scene.offhook), dice), dice)


def stall_scheduler(scene: Scene, dice: Random) -> None:
    _stall(scene.offhook.scheduler(), dice)


def stall_supervisor(scene: Scene, dice: Random) -> None:
    _stall(dice.choice(_supervisors(scene.offhook)), dice)


def stall_server(scene: Scene, dice: Random) -> None:
    _stall(scene.offhook.server_pid(), dice)


def _send(number: signal.Signals, pid: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


def _stall(pid: int, dice: Random) -> None:
    _send(signal.SIGSTOP, pid)
    time.sleep(dice.uniform(1, 5))
    _send(signal.SIGCONT, pid)


def _one_of(pids: Sequence[int], dice: Random) -> int:
    if not pids:
        raise NothingToStrike
    return dice.choice(sorted(pids))


def _supervisors(offhook: Installation) -> list[int]:
    return [offhook.supervisor.pid, *sorted(children(offhook.supervisor.pid))]


def _workers(offhook: Installation) -> list[int]:
    return [pid for pid in offhook.workers() if title(pid) != "offhook work: scheduler"]
