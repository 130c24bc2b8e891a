"""`make check` and pre-commit run the same checks; the audit of the lock files."""

import json
import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # comes with apprise; its types do not

from requirements import audit
from tests.http_target import http_target

ROOT = Path(__file__).parents[2]


def test_pre_commit_runs_the_checks_of_make_check() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    checks = [line.strip().lstrip("@") for line in recipe.splitlines()]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert entries == [check.replace("$(BIN)", ".venv/bin") for check in checks]
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["always_run"]
        assert not hook["pass_filenames"]


def release(version: str, *, yanked: bool = False, **advisory: object) -> bytes:
    """Return a release as the index describes it in JSON."""
    known = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fixed_in": ["2.0"], "link": "L"}
    files = [{"yanked": yanked}]
    described = {
        "info": {"version": version},
        "urls": files,
        "releases": {"1.0": [{"yanked": True}], version: files},
        "vulnerabilities": [known | {"withdrawn": None} | advisory] if advisory else [],
    }
    return json.dumps(described).encode()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text("some-package[extra]==1.0 ; os_name != 'nt' \\\n    --hash=sha256:00\n")
    return path


async def faults(*answers: bytes | int) -> tuple[list[str], bool]:
    """Audit a locked `some-package==1.0` with these answers of the index."""
    with http_target() as index:
        for answer in answers:
            if isinstance(answer, int):
                index.plan(status=answer)
            else:
                index.plan(body=answer)
        lines, faulty = await audit.audit([("some-package", "1.0")], index.url)
        assert len(index.requests) == len(answers)
    return lines[1:-1], faulty


async def test_audit_reports_vulnerable_and_yanked_releases() -> None:
    lines, faulty = await faults(release("1.0", id="PYSEC-2"))
    assert faulty
    assert lines == ["  some-package==1.0: PYSEC-2 (fixed in 2.0): L"]
    lines, faulty = await faults(release("1.0", yanked=True))
    assert faulty
    assert lines == ["  some-package==1.0: yanked from the package index"]
    lines, faulty = await faults(404, 404)
    assert faulty
    assert lines == ["  some-package==1.0: no longer in the package index"]
    assert await faults(release("1.0", withdrawn="2026-01-01")) == ([], False)


async def test_audit_passes_an_accepted_advisory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(audit.ACCEPTED, "CVE-1", "Offhook does not call it")
    assert await faults(release("1.0", id="PYSEC-2")) == ([], False)


async def test_audit_names_releases_without_advisories() -> None:
    with http_target() as index:
        index.plan(status=404)
        index.plan(body=release("1.1", id="PYSEC-2"))
        lines, faulty = await audit.audit([("some-package", "1.2")], index.url)
    assert not faulty
    assert lines[1:] == ["  no advisories in this index, NOT checked: some-package==1.2"]
    lines, faulty = await faults(404, release("1.1", id="PYSEC-2"))
    assert faulty  # such an index still knows yanked releases
    assert "  some-package==1.0: yanked from the package index" in lines


def test_audit_checks_every_locked_release_and_caches_a_clean_result(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_target() as index:

        def status(answer: bytes) -> int:
            index.plan(body=answer)
            return audit.main([lock], index.url, tmp_path / "cache")

        assert status(release("1.0")) == 0
        assert [request.path for request in index.requests] == ["/some-package/1.0/json"]
        assert "1 of 1 locked releases checked" in capsys.readouterr().out
        assert audit.main([lock], index.url, tmp_path / "cache") == 0
        assert "1 of 1 locked releases checked" in capsys.readouterr().out
        assert len(index.requests) == 1
        lock.write_text("some-package==1.1 \\\n    --hash=sha256:00\n")
        assert status(release("1.1", id="PYSEC-2")) == 1
        assert status(release("1.1", id="PYSEC-2")) == 1
        assert len(index.requests) == 3


def test_audit_without_an_index_reports_that_it_was_skipped(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_target() as index:
        for answer in ({"status": 503}, {"body": b"<html>"}, {"body": b"{}"}):
            index.plan(**answer)
            assert audit.main([lock], index.url, tmp_path / "cache") == 0
            assert "SKIPPED, no release was checked" in capsys.readouterr().out
    assert audit.main([lock], index.url, tmp_path / "cache") == 0
    assert "SKIPPED, no release was checked" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()
