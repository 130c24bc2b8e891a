"""Run with pytest. Neither a PBX nor a Redis server is needed."""

import json
from pathlib import Path

import pytest
from offhook.testing import configured, look_up

from address_book import AddressBook


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"+44 20 7946 0100": "Jane of Acme", "0211234567": "Ion Pop"}))
    return path


@pytest.mark.parametrize(
    ("number", "region", "name"),
    [
        ("+442079460100", None, "Jane of Acme"),
        ("020 7946 0100", "GB", "Jane of Acme"),
        ("+40211234567", "RO", "Ion Pop"),
        ("+442079460199", None, None),
    ],
)
def test_a_number_matches_in_any_format(
    path: Path, number: str, region: str | None, name: str | None
) -> None:
    assert look_up(configured(AddressBook, path=path), number, region=region) == name


def test_changes_to_the_file_take_effect(path: Path) -> None:
    book = configured(AddressBook, path=path)
    path.write_text('{"+442079460100": "Joe of Acme"}')
    assert look_up(book, "+442079460100") == "Joe of Acme"


def test_problems_with_the_file_are_reported(path: Path) -> None:
    book = configured(AddressBook, path=path)
    assert book.problem() is None
    path.write_text("not JSON")
    assert "not a usable address book" in str(book.problem())
    path.unlink()
    assert "No such file" in str(book.problem())
