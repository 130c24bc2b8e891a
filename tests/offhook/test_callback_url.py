"""Callback URLs and their tokens."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from offhook.callback_url import (
    RevokedUrls,
    callback_url,
    is_valid,
    make_token,
    read_callback_url,
    revoke,
    revoked_urls,
    token_version,
)
from offhook.errors import ConfigError
from tests.conftest import SECRET

OTHER = "another secret, longer than it needs to be"
NAMES = st.text(alphabet=st.characters(exclude_characters="\0"))
NAMED = ("main", "0003*210", "dial-in")


@given(NAMES, NAMES, NAMES)
def test_a_token_is_valid_for_the_names_it_was_made_for(
    pbx: str, extension: str, kind: str
) -> None:
    token = make_token(SECRET, pbx, extension, kind)
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", token)
    assert is_valid([SECRET], token, pbx, extension, kind)
    assert not is_valid([OTHER], token, pbx, extension, kind)


@given(st.tuples(NAMES, NAMES, NAMES), st.tuples(NAMES, NAMES, NAMES))
def test_a_token_is_valid_for_no_other_names(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assume(one != other)
    assert not is_valid([SECRET], make_token(SECRET, *one), *other)


def test_the_boundary_between_names_counts() -> None:
    assert make_token(SECRET, "ab", "c", "d") != make_token(SECRET, "a", "bc", "d")


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_other_text_is_invalid(token: str) -> None:
    assert not is_valid([SECRET], token, *NAMED)
    assert not is_valid([SECRET], make_token(SECRET, *NAMED), token, *NAMED[1:])


def test_each_of_two_secrets_is_valid() -> None:
    secrets = [SECRET, OTHER]
    for secret in secrets:
        assert is_valid(secrets, make_token(secret, *NAMED), *NAMED)
    assert not is_valid(secrets, make_token("x" * 40, *NAMED), *NAMED)


def test_a_changed_token_is_invalid() -> None:
    token = make_token(SECRET, *NAMED)
    for wrong in ("", token[:-1], token + "A", token.swapcase(), token + "\0"):
        assert not is_valid([SECRET], wrong, *NAMED)


def test_a_url_contains_pbx_extension_and_event_type() -> None:
    url = callback_url("https://calls.example/base/", SECRET, *NAMED)
    token = make_token(SECRET, *NAMED)
    assert url == f"https://calls.example/base/callback/main/0003*210/dial-in/{token}"


@given(st.text(min_size=1))
def test_the_names_can_be_read_back_from_a_url(pbx: str) -> None:
    try:
        url = callback_url("http://x", SECRET, pbx, *NAMED[1:])
    except ConfigError:
        assert pbx in (".", "..") or "/" in pbx or not pbx.isprintable()
    else:
        assert re.fullmatch(r"[!-~]+", url)
        names = url.removeprefix("http://x/callback/").split("/")
        assert [unquote(name) for name in names[:3]] == [pbx, *NAMED[1:]]


def test_a_name_that_a_url_cannot_carry_is_refused() -> None:
    for name in ("", ".", "..", "a/b", "a\0b", "a\nb", "\udc80"):
        for names in ((name, *NAMED[1:]), (NAMED[0], name, NAMED[2])):
            with pytest.raises(ConfigError, match="cannot be part of a callback URL"):
                callback_url("http://x", SECRET, *names)


@given(NAMES, NAMES, NAMES, st.sampled_from(["https://x.example", "http://h:80/callback/deep/"]))
def test_a_callback_url_can_be_parsed(pbx: str, extension: str, kind: str, base: str) -> None:
    try:
        url = callback_url(base, SECRET, pbx, extension, kind)
    except ConfigError:
        return
    read = read_callback_url(url)
    assert read is not None
    assert (read.base, read.pbx, read.extension, read.event_type) == (
        base.rstrip("/"),
        pbx,
        extension,
        kind,
    )
    assert read.made_with([OTHER, SECRET])
    assert not read.made_with([OTHER])
    assert read.token not in repr(read)


@given(st.text())
def test_any_other_url_is_not_a_callback_url(url: str) -> None:
    assert read_callback_url(url) is None
    assert read_callback_url(f"https://x/callback/main/1*2/hangup/{url[:23]}") is None


# Versions


def test_a_token_is_valid_for_its_own_version_only() -> None:
    first, second, third = (make_token(SECRET, *NAMED, version) for version in range(3))
    assert [token_version(token) for token in (first, second, third)] == [0, 1, 2]
    for token in (first, second, third):
        assert is_valid([OTHER, SECRET], token, *NAMED)
        assert not is_valid([OTHER], token, *NAMED)
    digest = second.partition(".")[0]
    for wrong in (
        digest,
        f"{digest}.2",
        f"{first}.1",
        f"{digest}.01",
        f"{digest}.1.1",
        f"{digest}.",
    ):
        assert not is_valid([SECRET], wrong, *NAMED)


def test_a_version_cannot_be_forged_with_a_name() -> None:
    pbx, extension, kind = NAMED
    digest = make_token(SECRET, *NAMED, 1).partition(".")[0]
    for names in (
        (f"{pbx}\0{extension}", kind, "1"),
        (pbx, f"{extension}\0{kind}", "1"),
        (pbx, extension, f"{kind}\x001"),
    ):
        assert make_token(SECRET, *names) == digest
        assert not is_valid([SECRET], digest, *names)


def test_a_url_with_a_version_can_be_parsed() -> None:
    url = callback_url("https://x.example", SECRET, *NAMED, 12)
    read = read_callback_url(url)
    assert read is not None
    assert (read.pbx, read.extension, read.event_type) == NAMED
    assert token_version(read.token) == 12
    assert read.made_with([SECRET])
    assert read_callback_url(f"{url}.3") is None


def test_revoked_urls_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    assert revoked_urls(path) == RevokedUrls()
    revoke(path, [NAMED])
    revoke(path, [NAMED, ("main", "0003*211", "hangup")])
    again = revoked_urls(path)
    assert again.version(*NAMED) == 2
    assert again.version("main", "0003*211", "hangup") == 1
    assert again.version("main", "0003*210", "hangup") == 0
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_urls_revoked_at_the_same_time_are_all_revoked(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: revoke(path, [("main", f"0003*{n % 4}", "hangup")]), range(80)))
    assert revoked_urls(path).versions == {f"main/0003*{n}/hangup": 20 for n in range(4)}


@pytest.mark.parametrize("text", ["{", "[]", '{"main/1*2/hangup": "1"}', '{"a": true}', "\xff"])
def test_a_damaged_file_of_revoked_urls_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "revoked.json"
    path.write_text(text, "latin-1")
    with pytest.raises(ConfigError, match=r"^revoked: .*revoked\.json is damaged: "):
        revoke(path, [NAMED])
    assert path.read_text("latin-1") == text


def test_a_file_of_revoked_urls_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^revoked: cannot write .*: No such file or directory"):
        revoke(tmp_path / "missing" / "revoked.json", [NAMED])
