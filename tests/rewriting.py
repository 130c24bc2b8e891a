"""Rewrite the assertions of all tests as pytest does, once: `python -m tests.rewriting`.

Each process of a run in parallel would otherwise do so for itself, before its first test. pytest
reads what it finds here, even when it may not write byte code (PYTHONDONTWRITEBYTECODE).
"""

import ast
import importlib.util
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from _pytest.assertion.rewrite import PYC_TAIL, _write_pyc_fp, get_cache_dir, rewrite_asserts

FOLDER = Path(__file__).parent


def rewrite(test: Path) -> None:
    """Write the byte code of a test where pytest looks for it, unless it is there."""
    source = test.read_bytes()
    hashed = importlib.util.source_hash(source)
    folder = get_cache_dir(test)
    kept = folder / f"{test.stem}{PYC_TAIL}"
    if kept.exists() and kept.read_bytes()[8:16] == hashed:
        return
    tree = ast.parse(source, str(test))
    rewrite_asserts(tree, source, str(test))
    folder.mkdir(parents=True, exist_ok=True)
    with kept.open("wb") as file:
        _write_pyc_fp(file, hashed, compile(tree, str(test), "exec", dont_inherit=True))


def main() -> None:
    tests = [*FOLDER.rglob("test_*.py"), *FOLDER.rglob("conftest.py")]
    with ProcessPoolExecutor() as pool:
        list(pool.map(rewrite, tests, chunksize=8))


if __name__ == "__main__":
    main()
