"""Links in the documents work, and messages that the documents quote exist in the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text()

# Messages of the Redis server and the operating system.
FOREIGN = (
    "OOM command not allowed",
    "MISCONF",
    "Can't recover from AOF",
    "Permission denied",
    "No space left on device",
)


def headed_messages() -> list[str]:
    headings = re.findall(r"^### (.*)$", TROUBLE, re.MULTILINE)
    return [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]


@pytest.fixture(scope="module")
def said() -> list[str]:
    return [text.replace("`", "") for text in texts()]


def texts() -> Iterator[str]:
    """Yield every string of the program, with `\\0` for each value that is inserted at run time."""
    for package in ("offhook", "offhook_cli", "receiver", "unifiedapi", "workers"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "\0"
                        for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.sub(r"%[-.\d]*[sdg]", "\0", node.value)
    yield re.sub(r"%[-.\d]*[sdg]", "\0", (ROOT / "Makefile").read_text())
    for path in (ROOT / "offhook").rglob("*.lua"):
        yield path.read_text()


def assert_said(message: str, said: list[str]) -> None:
    for part in re.split("…", message):
        wanted = part.strip(" :.;'()")
        if wanted and wanted not in FOREIGN:
            assert any(wanted in text for text in said), f"nothing says {wanted!r}"


def test_headings_of_troubleshooting_quote_our_messages(said: list[str]) -> None:
    for message in headed_messages():
        if not message.startswith(FOREIGN):
            assert_said(message, said)


def test_log_lines_quoted_for_operators_exist(said: list[str]) -> None:
    pages = ("operating", "changes", "callback-urls", "durability")
    page = "\n".join((ROOT / "docs" / f"{name}.md").read_text() for name in pages)
    (alarms,) = re.findall(r"^- In the logs: (.*?)\.", page, re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"`([^`]+)`", alarms) + re.findall(r"`([^`\n]*…[^`\n]*)`", prose_of(page))
    quoted += re.findall(r"^… (.*): .* \[event=", page, re.MULTILINE)
    assert len(quoted) > 5
    for message in quoted:
        assert_said(re.sub(r"\s+", " ", message), said)


def test_messages_quoted_for_each_fault_exist(said: list[str]) -> None:
    page = (ROOT / "docs" / "what-happens-when.md").read_text()
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ")]
    seen = " ".join(row[2] for row in rows if len(row) == 5)
    spans = [span.replace("`", "").strip() for span in re.findall(r"``.+?``|`[^`]+`", seen)]
    quoted = [span for span in spans if " " in span]
    assert len(quoted) > 10
    for message in quoted:  # names, numbers and reasons are inserted at run time
        assert_said(re.sub(r"Redis |-?\d+ %?|-?\d+|: ", "…", message), said)


def test_readme_shows_a_call_of_the_demo(said: list[str]) -> None:
    (story,) = re.findall(r"^    Call \d of \d: (.*)$", (ROOT / "README.md").read_text(), re.M)
    assert story in said


def test_every_refusal_code_is_explained() -> None:
    codes = set()
    dialects = (ROOT / "offhook" / "dialects").glob("*.py")
    for path in [*(ROOT / "receiver").glob("*.py"), *dialects]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RefusedCallback":
                status, code, *_ = [getattr(given, "value", None) for given in node.args]
                codes.add((str(code), str(status)))
    explained = re.findall(r"^\| `([a-z_]+)` \| (\d+) \|", TROUBLE, re.MULTILINE)
    assert set(explained) == codes


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.md")]


def prose(page: Path) -> str:
    return prose_of(page.read_text())


def prose_of(text: str) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates for the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_links_within_the_project_work() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if not link.startswith(("http://", "https://")):
                file, _, anchor = link.partition("#")
                target = page.parent / file if file else page
                assert target.exists(), f"{page.name}: {link}"
                assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_source_files_that_pages_name_exist() -> None:
    folders = "offhook|offhook_cli|receiver|workers|unifiedapi|tests|benchmarks|examples"
    named = [
        (page.name, path)
        for page in PAGES
        for path in re.findall(rf"`((?:{folders})/[\w/.-]+\.\w+)`", page.read_text())
        if "NAME" not in path  # a placeholder
    ]
    assert len(named) > 20
    assert [each for each in named if not (ROOT / each[1]).exists()] == []
