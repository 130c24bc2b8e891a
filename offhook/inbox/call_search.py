"""`search`: the calls that a filter selects, newest first, page by page.

In each partition the rarest of the filter's terms is read, by when its calls began, and the other
terms are looked up for each of them. What the index knows only roughly, such as a whole name, is
compared with the call itself. One page reads a limited number of entries, however rare the wanted
calls are.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Any, NamedTuple

import msgspec

from offhook.calls import CallFilter
from offhook.inbox import keys
from offhook.inbox.call_store import Calls, Kept
from offhook.inbox.stream import Inbox

_LEAST, _MOST = 16, 1024  # entries of a list in one request
_AT_ONCE = 500  # calls
_BUDGET = 100_000  # entries that one page reads; a call counts as twenty


class UnknownCursor(ValueError):
    """This text is not the cursor of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not the end of a page")


class CallPage(msgspec.Struct, frozen=True):
    """Calls, newest first.

    Attributes:
        cursor: where the next page begins; None if there is none. A page may have fewer calls than
            asked for, or none, although others follow.
    """

    calls: list[Kept]
    cursor: str | None


async def search(
    inbox: Inbox, wanted: CallFilter, most: int, after: str | None = None, tenant: str = ""
) -> CallPage:
    """The newest calls of a tenant that a filter selects.

    Args:
        most: maximum number of calls.
        after: the cursor of the page before.

    Raises:
        UnknownCursor: `after` is not a cursor.
    """
    start = None if after is None else _Place.at(after)
    lists = await _lists(inbox, wanted, start, tenant)
    found: list[tuple[_Place, Kept]] = []
    # Twice as many as are wanted, if the lists have equal parts.
    count, budget = max(_LEAST, min(2 * most // max(1, len(lists)), _MOST)), _BUDGET
    loaded = min(most + 1, _AT_ONCE)
    place = start
    while len(found) <= most and budget > 0:
        lagging = [each for each in lists if each.key and len(each.ready) < count // 4]
        budget -= await _read_on(inbox, lagging, count)
        count = min(4 * count, _MOST)
        unread = [each.last for each in lists if each.key and each.last]
        horizon = max(unread, default=None)  # every list has been read so far
        ready = sorted((place for each in lists for place in each.taken(horizon)), reverse=True)
        for at in range(0, len(ready), loaded):
            page = ready[at : at + loaded]
            kept = await _load(inbox, page)
            budget -= 20 * len(kept)
            calls = [(each, kept[each.name]) for each in page if each.name in kept]
            found += [each for each in calls if wanted.selects(each[1].state)]
            place = page[-1]
            if len(found) > most or budget <= 0:
                break
        else:
            loaded = _AT_ONCE  # few of those that the index finds are wanted
            place = horizon
            if place is None:
                break
    if len(found) > most:
        place = found[most - 1][0]
    return CallPage([call for _, call in found[:most]], place.cursor() if place else None)


class _Place(NamedTuple):
    """The place of a call in the order of all: when it began, in ms since 1970, and its name."""

    began: int
    name: bytes
    partition: int = -1

    def cursor(self) -> str:
        """The place as text that is safe in a shell and in a URL."""
        return "@" + urlsafe_b64encode(b"%d %b" % self[:2]).decode().rstrip("=")

    @classmethod
    def at(cls, cursor: str) -> "_Place":
        """The place of a cursor."""
        try:
            began, _, name = urlsafe_b64decode(f"{cursor[1:]}==").partition(b" ")
            place = cls(int(began), name)
        except ValueError as error:
            raise UnknownCursor(cursor) from error
        if place.cursor() != cursor:
            raise UnknownCursor(cursor)
        return place


@dataclass
class _List:
    """One partition's calls by when they began.

    Attributes:
        key: the sorted set that is read; None: all is read.
        others: further sets that a wanted call must be in.
        since, top: from when to when the calls began that are still to be read.
        last: the place read last.
        passed: how many calls that began at `top` have been read.
        ready: the places read and not taken, newest first, of calls that may be wanted.
    """

    partition: int
    key: str | None = None
    others: Sequence[str] = ()
    since: float = -inf
    top: float | str = inf
    last: _Place | None = None
    passed: int = 0
    ready: list[_Place] = field(default_factory=list)

    def take_in(self, page: Sequence[tuple[bytes, float]], asked: int) -> list[_Place]:
        """Move on by a page that was read. Returns what is new of it."""
        if len(page) < asked:
            self.key = None
        if not page:
            return []
        places = [_Place(int(began), name, self.partition) for name, began in page]
        bottom = places[-1].began
        passed = sum(place.began == bottom for place in places)
        self.passed = passed + (self.passed if bottom == self.top else 0)
        self.top = bottom
        new = [place for place in places if self.last is None or place[:2] < self.last[:2]]
        self.last = new[-1] if new else self.last
        return new

    def taken(self, horizon: _Place | None) -> list[_Place]:
        """Take the places down to the horizon."""
        some = [place for place in self.ready if horizon is None or place >= horizon]
        self.ready = self.ready[len(some) :]
        return some


async def _lists(
    inbox: Inbox, wanted: CallFilter, start: _Place | None, tenant: str
) -> list[_List]:
    """The list to read in each partition: that of the rarest term, or of all calls."""
    if wanted.live:
        return await _live_lists(inbox, wanted, start, tenant)
    since = _milliseconds(wanted.since, -inf)
    top = f"({_milliseconds(wanted.before, inf)}" if start is None else start.began
    async with inbox.redis.pipeline(transaction=False) as pipeline:
        for partition in range(inbox.partitions):
            pipeline.exists(keys.indexed(partition, tenant))
            for term in wanted.terms:
                pipeline.zcount(keys.index(partition, term, tenant), since, top)
        counted = iter(await pipeline.execute())
    lists = []
    for partition in range(inbox.partitions):
        is_indexed = next(counted)
        sizes = {keys.index(partition, term, tenant): next(counted) for term in wanted.terms}
        every = keys.calls(partition, tenant)
        if not (is_indexed and sizes):
            lists.append(_List(partition, every, [], since, top, start))
        elif all(sizes.values()):
            rarest, *others = sorted(sizes, key=sizes.__getitem__)
            lists.append(_List(partition, rarest, [every, *others], since, top, start))
    return lists


async def _live_lists(
    inbox: Inbox, wanted: CallFilter, start: _Place | None, tenant: str
) -> list[_List]:
    """The calls that go on, of which there are few."""
    since, before = _milliseconds(wanted.since, -inf), _milliseconds(wanted.before, inf)
    async with inbox.redis.pipeline(transaction=False) as pipeline:
        for partition in range(inbox.partitions):
            pipeline.zrange(keys.live(partition), 0, -1)
        live = dict(enumerate(await pipeline.execute()))
        going = {partition: names for partition, names in live.items() if names}
        for partition, names in going.items():
            pipeline.zmscore(keys.calls(partition, tenant), names)
        began = await pipeline.execute()
    lists = []
    for (partition, names), moments in zip(going.items(), began, strict=True):
        places = [
            _Place(int(at), name, partition)
            for name, at in zip(names, moments, strict=True)
            if at is not None and since <= at < before
        ]
        ready = sorted((each for each in places if not start or each[:2] < start[:2]), reverse=True)
        lists.append(_List(partition, ready=ready))
    return lists


async def _read_on(inbox: Inbox, lists: Iterable[_List], count: int) -> int:
    """Read the next entries of each list. Returns how many there were."""
    lists = list(lists)
    async with inbox.redis.pipeline(transaction=False) as pipeline:
        for each in lists:
            pipeline.zrange(
                each.key or "",
                each.top,
                each.since,
                desc=True,
                byscore=True,
                withscores=True,
                offset=each.passed,
                num=count,
            )
        pages: Any = await pipeline.execute()
    new = [each.take_in(page, count) for each, page in zip(lists, pages, strict=True)]
    async with inbox.redis.pipeline(transaction=False) as pipeline:
        for each, places in zip(lists, new, strict=True):
            for other in each.others if places else ():
                pipeline.zmscore(other, [place.name for place in places])  # type: ignore[misc]
        scores = iter(await pipeline.execute())
    for each, places in zip(lists, new, strict=True):
        rows = [next(scores) for _ in each.others] if places else []
        each.ready += [
            place for n, place in enumerate(places) if all(row[n] is not None for row in rows)
        ]
    return sum(map(len, pages))


async def _load(inbox: Inbox, places: Iterable[_Place]) -> dict[bytes, Kept]:
    """The calls at these places, as far as they are kept."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for place in places:
        names[place.partition].append(place.name.decode())
    return {name.encode(): kept for name, kept in (await Calls(inbox).load_each(names)).items()}


def _milliseconds(moment: datetime | None, unlimited: float) -> float:
    return unlimited if moment is None else int(moment.timestamp() * 1000)
