"""The CSV lookup on files as spreadsheets and address books write them."""

import os
from pathlib import Path
from typing import Any

import pytest

from offhook import TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, look_up
from workers.lookups import csv as module
from workers.lookups.csv import Csv

JANE = "+40211234567"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "contacts.csv"


@pytest.mark.parametrize(
    "typed",
    [
        *("+40211234567", "40211234567", "0040211234567", "0211234567"),
        *("+40 21 123 4567", "021 123 4567", "021-123-4567", "(021) 123.4567", "021/1234567"),
        *("+40 (0)21 123 4567", "tel:+40-21-123-4567", "021 123 4567 ext. 12", "021\u00a0123–4567"),
    ],
)
def test_a_number_is_found_in_every_form(typed: str, path: Path) -> None:
    path.write_text(f"name,number\nSomebody,+40211234568\nJane Doe,{typed}\n")
    for dialled in (JANE, "0211234567", "40211234567"):
        assert look_up(Csv(path), dialled, region="RO") == "Jane Doe"


@pytest.mark.parametrize("typed", ["+44211234567", "1234567", "0211234568", "02112345670", ""])
def test_another_number_is_not_found(typed: str, path: Path) -> None:
    path.write_text(f"name,number\nJohn,{typed}\n")
    assert look_up(Csv(path), JANE, region="RO") is None


def test_the_region_is_the_country_of_national_numbers(path: Path) -> None:
    path.write_text("name,number\nJane,021 123 4567\n")
    assert look_up(Csv(path), JANE, region="GB") is None
    assert look_up(Csv(path), JANE) == "Jane"  # then they are of the caller's own country
    assert look_up(Csv(path), "0211234567") == "Jane"


def test_a_short_number_is_found(path: Path) -> None:
    path.write_text("name,number\nNiue,+683 4002\nTaxi,+372 12345\n")
    assert look_up(Csv(path), "+37212345") == "Taxi"
    assert look_up(Csv(path), "+6834002") == "Niue"


@pytest.mark.parametrize(
    "text",
    [
        "number,name\n+40211234567,Jane Doe\n",
        "number;name\r\n+40211234567;Jane Doe\r\n",
        "number\tname\n+40211234567\tJane Doe\n",
        '"name", "number"\n"Jane Doe","+40211234567"\n',
        "\ufeffnumber,name\n+40211234567,Jane Doe\n",
        "id,number,name,note\n1\n2,+40211234567,Jane Doe\n",
        "number,name\n,Nobody\n+40211234567,\n+40211234567,  Jane  Doe \n",
        'number,name\n+40211234567,"Jane\nDoe"\n',
    ],
)
def test_every_usual_csv_format_is_read(text: str, path: Path) -> None:
    path.write_text(text, newline="")
    assert look_up(Csv(path), JANE) == "Jane Doe"


def test_a_contact_may_have_several_numbers_and_a_name_in_parts(path: Path) -> None:
    path.write_text("First,Last,Phone,Mobile\nJane,Doe,,+40211234567\n,Acme,+40211234568,\n")
    book = configured(Csv, path=str(path), number=["Phone", "Mobile"], name=["First", "Last"])
    assert look_up(book, JANE) == "Jane Doe"
    assert look_up(book, "+40211234568") == "Acme"
    assert configured(Csv, path=str(path), number="Phone").number == ("Phone",)


def test_the_first_of_several_names_is_used(path: Path) -> None:
    path.write_text("number,name\n+40211234567,Jane\n0040 21 1234567,John\n")
    assert look_up(Csv(path), JANE) == "Jane"


def test_only_a_changed_file_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = module._Book._all

    def count(book: Any, size: int) -> Any:
        reads.append(size)
        return read(book, size)

    monkeypatch.setattr(module._Book, "_all", count)
    path.write_text("number,name\n+40211234567,Jane\n")
    book = Csv(path)
    assert [look_up(book, JANE) for _ in range(3)] == ["Jane"] * 3
    assert len(reads) == 1
    other = path.with_suffix(".new")
    other.write_text("number,name\n+40211234567,Joan\n")
    before = path.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync -t and cp -p leave it
    other.replace(path)
    assert look_up(book, JANE) == "Joan"
    assert len(reads) == 2


def test_an_invalid_file_is_temporary_until_it_is_corrected(path: Path) -> None:
    book = Csv(path)
    for content, said in {
        b"": "has no column number, name in its first line",
        b"Phone,name\n1,2\n": "has no column number in its first line",
        b"Number;Name\n1;2\n": "options number and name; did you mean 'Number'?",
        b"+40211234567;Jane Doe\n": "has no column number, name",
        b"number,name\n1,M\xfcller\n": ", line 2: is not UTF-8: save it as CSV UTF-8",
        b'number,name\n1,"' + b"x" * 200_000: "is not CSV: field larger than field limit",
    }.items():
        path.write_bytes(content)
        with pytest.raises(TemporaryError) as wrong:
            look_up(book, JANE)
        assert said in str(wrong.value)
        assert "40211234567" not in str(wrong.value)
        assert book.problem() == str(wrong.value)
    path.write_text("number,name\n+40211234567,Jane\n")
    assert book.problem() is None
    assert look_up(book, JANE) == "Jane"


def test_an_unreadable_file_is_a_problem(path: Path, tmp_path: Path) -> None:
    assert Csv(path).problem() == f"{path} cannot be read: No such file or directory"
    assert Csv(tmp_path).problem() == f"{tmp_path} cannot be read: Is a directory"


def test_a_file_has_a_maximum_size(path: Path) -> None:
    with path.open("w") as file:
        file.truncate(Csv.largest + 1)
    assert str(Csv(path).problem()).startswith(f"{path} has more than 20 MB: ")


@pytest.mark.parametrize("option", ["number", "name"])
def test_a_column_is_required(option: str, path: Path) -> None:
    with pytest.raises(ConfigError, match=f"options.{option}: "):
        configured(Csv, path=str(path), **{option: []})
