"""Token buckets, and each extension's share of a store without room."""

import pytest

from offhook.inbox.refused import Cause
from offhook.settings import TenantLimits, TenantSettings
from receiver.limits import BURST, Bucket, KnownUrl, Shares


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


def url(shares: Shares, extension: str, tenant: str = "") -> KnownUrl:
    share = shares.of("main", extension)
    return KnownUrl("main", extension, "dial-in", 1.0, share, shares.of_tenant(tenant))


def test_share_is_limited_only_while_room_is_scarce() -> None:
    shares = Shares({})
    loud, quiet = url(shares, "0003*210"), url(shares, "0003*211")
    assert not any(shares.take(loud, 1000) for _ in range(100))
    shares.size = 500_000.0
    assert shares.take(loud, 1000) is Cause.SHARE
    assert shares.take(quiet, 1000) is None
    shares.size = None
    assert shares.take(loud, 1000) is None


def test_a_tenants_extensions_have_a_share_together() -> None:
    limits = TenantLimits(share=0.3)
    names = ("acme", "beta")
    shares = Shares({name: TenantSettings(extensions=[], limits=limits) for name in names})
    acme = [url(shares, f"0003*{n}", "acme") for n in range(10)]
    for each in acme:
        assert [shares.take(each, 500) for _ in range(10)] == [None] * 10  # 100,000 bytes in all
    shares.size = 300_000.0
    assert {shares.take(each, 500) for each in acme} == {Cause.TENANT_SHARE}
    assert shares.take(url(shares, "0004*1", "beta"), 500) is None
    assert shares.take(url(shares, "0005*1"), 500) is None  # the operator's
    shares.halve()
    assert {shares.take(each, 500) for each in acme} == {None}


def test_other_limits_of_tenants_hold_at_once() -> None:
    def tenants(share: float, *names: str) -> dict[str, TenantSettings]:
        limits = TenantLimits(share=share)
        return {name: TenantSettings(extensions=[], limits=limits) for name in names}

    shares = Shares(tenants(0.5, "acme"))
    shares.take(url(shares, "0003*1", "acme"), 500)
    shares.size = 10_000.0
    assert shares.take(url(shares, "0003*2", "acme"), 500) is None  # 1,000 of 5,000 bytes
    shares.limit_tenants(tenants(0.2, "acme", "beta"))
    assert shares.take(url(shares, "0003*3", "acme"), 500) is Cause.TENANT_SHARE
    assert shares.take(url(shares, "0004*1", "beta"), 500) is None


def test_all_urls_of_an_extension_have_one_share() -> None:
    shares = Shares({})
    assert shares.of("main", "0003*210") is shares.of("main", "0003*210")
    assert shares.of("main", "0003*210") is not shares.of("other", "0003*210")


def test_what_was_taken_is_forgotten_by_halves() -> None:
    shares = Shares({})
    one = url(shares, "0003*210")
    shares.take(one, 9500)
    for _ in range(3):
        shares.halve()
    assert one.share.taken == 1250
