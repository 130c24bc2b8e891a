"""Logging of every process: to standard error, a line each, as JSON or for people.

Every record goes the same way, those of uvicorn, RQ and plugins too. Only a message has texts from
elsewhere, and it is cleaned.
"""

import logging
import logging.config
import re
import sys
import time
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Literal

import msgspec

Form = Literal["auto", "json", "text"]
Level = Literal["debug", "info", "warning", "error"]

HIDDEN = "***"
KEYS = ("tenant", "call", "event", "pbx", "extension", "handler", "attempt")
_SHORTEST = 4  # characters: a shorter secret is not recognizable in a text
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_BEARER = re.compile(r"(?<=\bBearer )[\w.~+/-]+=*", re.IGNORECASE)
_CALLBACK = re.compile(r"(/callback)/[^\s\"']+")
_NUMBER = re.compile(r"\+?\d[\d ()./-]{4,}\d")  # no CallID: those are in the keys


class Cleaner:
    """Removes what must not be in a log from a text.

    Args:
        secrets: texts to hide, wherever they are.
        mask_numbers: hide all but the last two digits of what may be a phone number.
    """

    def __init__(self, secrets: Collection[str] = (), *, mask_numbers: bool = False) -> None:
        known = sorted((each for each in secrets if len(each) >= _SHORTEST), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known)) or r"(?!)")
        self._mask_numbers = mask_numbers

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        text = self._secrets.sub(HIDDEN, text)
        if "://" in text:
            text = _PASSWORD.sub(HIDDEN, text)
        if "earer " in text.lower():  # it is slow, and they are rare
            text = _BEARER.sub(HIDDEN, text)
        text = _CALLBACK.sub(rf"\1/{HIDDEN}", text)
        return _NUMBER.sub(_masked, text) if self._mask_numbers else text


def _masked(number: re.Match[str]) -> str:
    return f"{HIDDEN}{number[0][-2:]}"


class LineFormatter(logging.Formatter):
    """Writes a record as one line; a stack trace for people has lines of its own.

    Args:
        form: `auto` is `text` if standard error is a terminal, else `json`.
        secrets, mask_numbers: as of `Cleaner`.
    """

    def __init__(
        self, form: Form = "auto", secrets: Collection[str] = (), *, mask_numbers: bool = False
    ) -> None:
        super().__init__()
        self._clean = Cleaner(secrets, mask_numbers=mask_numbers)
        terminal = sys.stderr is not None and sys.stderr.isatty()
        if form == "auto":
            form = "text" if terminal else "json"
        self._write = _as_json if form == "json" else _as_text

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return self._write(self._described(record))

    def _described(self, record: logging.LogRecord) -> dict[str, Any]:
        """What a line says, in its order."""
        line: dict[str, Any] = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(self._clean(record.getMessage())),
        }
        # A CallID may contain anything, even line breaks.
        for key in KEYS:
            value = getattr(record, key, "")
            if value != "":
                line[key] = printable(value) if isinstance(value, str) else value
        trace = record.exc_text
        if not trace and record.exc_info:
            trace = self.formatException(record.exc_info)
        if trace:
            line["exception"] = "\n".join(map(printable, self._clean(trace).split("\n")))
        return line


def _moment(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds * 1000) % 1000:03}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _as_json(line: dict[str, Any]) -> str:
    return msgspec.json.encode(line, enc_hook=str).decode(errors="replace")


def _as_text(line: dict[str, Any]) -> str:
    said = [line["time"], line["level"].upper(), f"{line['logger']}:", line["message"]]
    if keys := " ".join(f"{key}={line[key]}" for key in KEYS if key in line):
        said.append(f"[{keys}]")
    text = " ".join(said)
    return f"{text}\n{line['exception']}" if "exception" in line else text


def printable(text: str) -> str:
    """Replace what is not printable, such as a terminal's control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Outage:
    """Logs an outage at once, then once a minute, and when it is over.

    A line for every retry would fill the disk in a long outage.

    Args:
        what: the name of what does not answer.
        every: seconds from one line to the next.
    """

    def __init__(self, log: logging.Logger, what: str, every: float = 60.0) -> None:
        self._log = log
        self._what = what
        self._every = every
        self._next: float | None = None  # None: no outage

    def goes_on(self, error: Exception) -> None:
        """Report a failure."""
        now = time.monotonic()
        if self._next is None or now >= self._next:
            self._next = now + self._every
            self._log.error("%s does not answer (%s); trying again", self._what, error)

    def is_over(self) -> None:
        """Report a success."""
        if self._next is not None:
            self._next = None
            self._log.warning("%s answers again", self._what)


def log_config(
    form: Form = "auto",
    level: Level = "info",
    secrets: Collection[str] = (),
    *,
    mask_numbers: bool = False,
) -> dict[str, Any]:
    """The configuration of `logging`, as data: uvicorn passes it to its worker processes.

    Args:
        level: of Offhook's own lines; those of libraries are logged from warnings on.
    """
    line = {
        "()": LineFormatter,
        "form": form,
        "secrets": [*secrets],
        "mask_numbers": mask_numbers,
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": line},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"offhook": {"level": level.upper()}},
    }
