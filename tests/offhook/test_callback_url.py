"""Callback URLs and their tokens."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from offhook.callback_url import callback_url, is_valid, make_token, read_callback_url
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
