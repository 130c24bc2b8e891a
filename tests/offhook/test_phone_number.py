"""Telephone numbers: the forms of a number, and comparing two."""

import pytest

from offhook import Number

JANE = Number("+40211234567", "+40211234567")


def test_a_number_has_all_its_forms() -> None:
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
def test_the_form_of_a_number_does_not_matter(typed: str) -> None:
    assert JANE.is_same(typed)
    assert Number("0211234567", "+40211234567", region="RO").is_same(typed)


@pytest.mark.parametrize(
    "typed",
    ["", "-", "unknown", "1234567", "0211234568", "+44211234567", "+1 21 123 4567", "02112345670"],
)
def test_other_numbers_differ(typed: str) -> None:
    assert not JANE.is_same(typed)


def test_the_region_applies_to_numbers_without_a_country() -> None:
    ours = Number("+40211234567", "+40211234567", region="GB")
    assert not ours.is_same("021 123 4567")
    assert ours.is_same("+40 21 123 4567")


def test_numbers_without_a_country_are_compared_from_the_end() -> None:
    number = Number("0211234567")
    assert number.forms == ("0211234567",)
    for typed in ("+40211234567", "021-123-4567"):
        assert number.is_same(typed)
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
def test_a_number_is_complete_if_its_country_is_known(
    text: str, region: str | None, e164: str | None
) -> None:
    assert Number.read(text, region) == Number(text, e164, region)


def test_hidden_and_short_numbers_are_nobodys() -> None:
    for text in ("", "anonymous", "112", "2345"):
        assert Number.read(text, "RO").is_nobodys
    assert not JANE.is_nobodys


@pytest.mark.parametrize(
    "form",
    [
        *("+40211234567", "0040211234567", "40211234567", "0211234567", "021 123 4567"),
        *("+40 (0)21 123-45-67", "01140211234567", "sip:+40211234567@pbx", "211234567"),
    ],
)
def test_a_number_is_found_in_a_text_in_any_form(form: str) -> None:
    for text in (form, f'{{"number":"{form}"}}', f"a,{form},b", f"Jane ({form}): missed"):
        assert JANE.is_in(text)


@pytest.mark.parametrize(
    "text",
    [
        *("+40211234568", "+33211234567", "+402112345678", "9940211234567", "21123456", ""),
        *("211234567.101", "1.211234567", "a211234567", "211234567f", "2112345670"),
    ],
)
def test_a_longer_number_or_an_id_is_not_the_number(text: str) -> None:
    assert not JANE.is_in(text)
