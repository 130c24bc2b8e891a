"""Token buckets, and each extension's share of a store without room."""

import pytest

from receiver.limits import BURST, Bucket, Shares


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def taken(bucket: Bucket, tries: int) -> int:
    return sum(bucket.take() for _ in range(tries))


def test_bucket_allows_a_burst_and_then_its_rate(clock: list[float]) -> None:
    bucket = Bucket(10)
    most = 10 * BURST
    assert most <= taken(bucket, 10_000) <= most + 2
    assert not bucket.full
    clock[0] += 2
    assert 19 <= taken(bucket, 10_000) <= 21
    clock[0] += 1_000_000  # what is saved up is limited
    assert bucket.full
    assert most <= taken(bucket, 10_000) <= most + 2


def test_bucket_never_limits_a_steady_rate(clock: list[float]) -> None:
    bucket = Bucket(100)
    for _ in range(20_000):
        clock[0] += 0.01
        assert bucket.take()


def test_share_is_limited_only_while_room_is_scarce() -> None:
    shares = Shares()
    loud, quiet = shares.of("main", "0003*210"), shares.of("main", "0003*211")
    assert all(shares.take(loud, 1000) for _ in range(100))
    shares.limit = 50_000.0
    assert not shares.take(loud, 1000)
    assert shares.take(quiet, 1000)
    shares.limit = None
    assert shares.take(loud, 1000)


def test_all_urls_of_an_extension_have_one_share() -> None:
    shares = Shares()
    assert shares.of("main", "0003*210") is shares.of("main", "0003*210")
    assert shares.of("main", "0003*210") is not shares.of("other", "0003*210")


def test_what_was_taken_is_forgotten_by_halves() -> None:
    shares = Shares()
    share = shares.of("main", "0003*210")
    shares.take(share, 9500)
    for _ in range(3):
        shares.halve()
    assert share.taken == 1250
