"""docs/architecture.md and docs/how-it-works.md: the files and functions that they name exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MOST_FILES = 5

WALKS = {
    heading: re.findall(r"^\| `(\S+\.py)` \| (.+?) \|", text, re.MULTILINE)
    for heading, text in re.findall(r"^## (The way of .+)\n((?:(?!## ).*\n)+)", PAGE, re.MULTILINE)
}


def defined(path: str) -> set[str]:
    """The functions of a file, methods as `Class.method`."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names


def test_there_is_a_walk_for_a_callback_and_one_for_a_delivery() -> None:
    assert list(WALKS) == ["The way of one callback", "The way of one delivery"]
    assert all(WALKS.values())


def test_a_walk_needs_few_files() -> None:
    for walk, steps in WALKS.items():
        assert len({path for path, _ in steps}) <= MOST_FILES, walk


def test_every_function_of_a_walk_exists() -> None:
    for steps in WALKS.values():
        for path, functions in steps:
            named = set(re.findall(r"`([^`]+)`", functions))
            assert named
            assert named <= defined(path), path


@pytest.mark.parametrize("page", ["architecture.md", "how-it-works.md"])
def test_every_file_and_folder_that_the_page_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`(\w+/(?:\w+/)*(?:\w+\.py)?)`", text)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
