"""Puts a configuration into a bad situation, and collects every sentence about it."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offhook.errors import ConfigError
from offhook.plugins import check_all, load_checked
from tests.conftest import SECRET
from tests.offhook_cli.conftest import offhook

__all__ = ["offhook"]

Check = Callable[[str | bytes], list[str]]


@pytest.fixture(autouse=True)
def _invalid_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know no name that ends in .invalid, whether or not a name server answers."""
    real = socket.getaddrinfo

    def resolve(host: str | bytes | None, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name and name.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a configuration, without any other configuration."""
    for name in os.environ:
        if name.startswith("OFFHOOK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OFFHOOK_CONFIG", str(tmp_path / "offhook.toml"))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def check(folder: Path) -> Check:
    """Return a function that writes a configuration, and returns all that is wrong with it.

    It shows the configuration's folder as `HERE`.
    """

    def check(text: str | bytes) -> list[str]:
        if isinstance(text, str):
            secret = "" if text.startswith("secret") else f"secret = {SECRET!r}\n"
            text = (secret + text).encode("latin-1")
        (folder / "offhook.toml").write_bytes(text)
        found = check_all()
        if found.problems:
            with pytest.raises(ConfigError) as wrong:
                load_checked()
            assert wrong.value.problems == found.problems
        sentences = [*found.problems, *found.broken.values(), *found.warnings]
        return [in_one_line(each).replace(str(folder), "HERE") for each in sentences]

    return check


def in_one_line(sentence: str) -> str:
    """Return a sentence that is for an operator: one line, and in plain words."""
    assert "\n" not in sentence
    assert not re.search("Traceback|Value error|position [0-9]|byte [0-9]", sentence), sentence
    return sentence
