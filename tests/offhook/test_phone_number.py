"""Telephone numbers: every form of one, and whether two are the same."""

import pytest

from offhook import Number

JANE = Number("+40211234567", "+40211234567")


def test_a_number_has_every_form() -> None:
    assert JANE.forms == (
        "+40211234567",
        "40211234567",
        "0040211234567",
        "+40 21 123 4567",
        "021 123 4567",
        "0211234567",
        "211234567",
    )
    assert (JANE.national, JANE.groups) == ("211234567", ("21", "123", "4567"))


@pytest.mark.parametrize(
    "typed",
    [
        *JANE.forms,
        "(021) 123-4567",
        "021.123.4567",
        " 021 123 4567 ",
        "021/1234567",
        "+40 (0)21 123 4567",
        "tel:+40-21-123-4567",
        "021 123 4567 ext. 12",
    ],
)
def test_it_is_the_same_however_it_is_written(typed: str) -> None:
    assert JANE.is_same(typed)
    assert Number("0211234567", "+40211234567", region="RO").is_same(typed)


@pytest.mark.parametrize(
    "typed",
    ["", "-", "unknown", "1234567", "0211234568", "+44211234567", "+1 21 123 4567", "02112345670"],
)
def test_another_number_is_another(typed: str) -> None:
    assert not JANE.is_same(typed)


def test_the_region_decides_what_has_no_country() -> None:
    ours = Number("+40211234567", "+40211234567", region="GB")
    assert not ours.is_same("021 123 4567")
    assert ours.is_same("+40 21 123 4567")


@pytest.mark.parametrize(("typed", "same"), [("+40211234567", True), ("021-123-4567", True)])
def test_a_number_of_no_country_is_compared_from_its_end(typed: str, same: bool) -> None:
    number = Number("0211234567")
    assert number.forms == ("0211234567",)
    assert number.is_same(typed) is same
    assert not number.is_same("4567")
    assert not number.is_same("0211234568")
    assert not Number("04567").is_same("0211234567")


@pytest.mark.parametrize(
    ("text", "region", "e164"),
    [
        ("+40 21 123 4567", None, "+40211234567"),
        ("0211234567", "RO", "+40211234567"),
        ("40211234567", "RO", "+40211234567"),
        ("0211234567", None, None),
        ("anonymous", "RO", None),
    ],
)
def test_it_is_known_in_full_where_its_country_is(
    text: str, region: str | None, e164: str | None
) -> None:
    assert Number.read(text, region) == Number(text, e164, region)


@pytest.mark.parametrize("text", ["", "anonymous", "112", "2345"])
def test_what_is_hidden_or_short_is_nobodys(text: str) -> None:
    assert Number.read(text, "RO").is_nobodys
    assert not JANE.is_nobodys
