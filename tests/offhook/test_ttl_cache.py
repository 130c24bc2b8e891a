"""`TtlCache`."""

from offhook.ttl_cache import TtlCache


def test_a_value_expires() -> None:
    now = [0.0]
    cache = TtlCache[str, int](10, clock=lambda: now[0])
    cache.keep("a", 1)
    cache.keep("b", 2, 5)
    now[0] = 9.9
    assert (cache.get("a"), cache.get("b")) == (1, None)
    now[0] = 10.0
    assert cache.get("a") is None


def test_the_oldest_value_goes_when_there_are_too_many() -> None:
    cache = TtlCache[int, int](10, size=2)
    for number in (1, 2, 1, 3):
        cache.keep(number, number)
    assert [cache.get(number) for number in (1, 2, 3)] == [1, None, 3]
    cache.forget(3)
    assert cache.get(3) is None
