"""`reload()`: has all processes of an installation change to a new version, or none."""

import time
from collections.abc import Callable, Iterable

from redis import Redis

from offhook.errors import OffhookError
from offhook.operations.processes import Process, Reload, begin, cancel, commit, running
from offhook.operations.running_files import Loaded

_LOOK_EVERY = 0.1  # seconds
_REFUSED = "nothing has changed, and all processes run on as they were"


class ReloadFailed(OffhookError):
    """Not all processes run the new version. The message says why, and what they run."""


def reload(redis: Redis, loaded: Loaded, timeout: float, say: Callable[[str], None]) -> int:
    """Have all processes change to a version.

    Args:
        redis: a blocking client of the inbox's server.
        loaded: the version.
        timeout: seconds for everything.
        say: takes a line about the progress.

    Returns:
        How many processes run it.

    Raises:
        ReloadFailed: they do not.
        RedisError: Redis does not answer.
    """
    deadline = time.monotonic() + timeout
    wanted = Reload.to(loaded)
    while not begin(redis, wanted, timeout + 5):
        _check_time(deadline, f"another reload has not finished; {_REFUSED}")
        time.sleep(_LOOK_EVERY)
    try:
        found = _wait(redis, wanted, deadline, say)
    except BaseException:
        cancel(redis)
        raise
    if all(each.step == "done" for each in found):
        cancel(redis)
        return len(found)
    commit(redis, wanted)
    say("every process is ready: changing to the new version")
    return len(_wait(redis, wanted, deadline, say, committed=True))


def _wait(
    redis: Redis,
    wanted: Reload,
    deadline: float,
    say: Callable[[str], None],
    *,
    committed: bool = False,
) -> list[Process]:
    """Wait until every process is ready to change or, if that is committed, has done so."""
    reached = {"done"} if committed else {"done", "ready"}
    what = "run the new version" if committed else "are ready"
    after = "; `offhook status` shows what each runs" if committed else f"; {_REFUSED}"
    said = ""
    while True:
        found = running(redis)
        if not found:
            raise ReloadFailed(
                "no process of Offhook reports to this Redis: start `offhook serve` and "
                "`offhook work`; if redis_url has changed, restart them"
            )
        ours = [each for each in found if each.reload == wanted.id]
        if refused := [each for each in ours if each.step == "refused"]:
            raise ReloadFailed("\n".join([*_reasons(refused), after.removeprefix("; ")]))
        there = [each for each in ours if each.step in reached]
        if len(there) == len(found):
            return found
        line = f"{len(there)} of {len(found)} processes {what}"
        if line != said:
            say(line)
            said = line
        late = ", ".join(str(each) for each in found if each not in there)
        _check_time(deadline, f"{line} in time; not {late}{after}")
        time.sleep(_LOOK_EVERY)


def _reasons(refused: Iterable[Process]) -> list[str]:
    return [f"{each} refuses: {problem}" for each in refused for problem in each.problems]


def _check_time(deadline: float, sentence: str) -> None:
    if time.monotonic() > deadline:
        raise ReloadFailed(sentence)
