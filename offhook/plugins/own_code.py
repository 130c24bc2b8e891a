"""Runs a plugin's own code, and says which line of it fails, without a traceback of ours."""

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import FrameSummary, extract_tb

from offhook.errors import BrokenPlugin, ConfigError

_PYTHON = sysconfig.get_path("stdlib")
_INSTALLED = ("site-packages", "dist-packages")
_OURS = str(Path(__file__).parent)


@contextmanager
def plugin_code(where: str) -> Iterator[None]:
    """Run a plugin's code, which may raise anything.

    Args:
        where: the beginning of the sentence: the key of the configuration, or the plugin's name.

    Raises:
        BrokenPlugin: names the exception, and the file and line of the plugin.
        ConfigError: raised inside.
    """
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise BrokenPlugin(f"{where} cannot be loaded: {what_failed(error)}") from error


def what_failed(error: BaseException) -> str:
    """The exception, with the place in the plugin's file that is to be corrected."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    words = str(error).partition("\n")[0]
    return f"{type(error).__name__}{': ' * bool(words)}{words}{place(error)}"


def place(error: BaseException) -> str:
    """The last line of the plugin's own files that ran, as ` (FILE, line N)`; empty if none did."""
    frames = [frame for frame in extract_tb(error.__traceback__) if _is_a_plugins(frame)]
    if not frames:
        return ""
    folder = Path(frames[0].filename).parent
    last = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)][-1]
    return f" ({last.filename}, line {last.lineno})"


def _is_a_plugins(frame: FrameSummary) -> bool:
    file = frame.filename
    if file.startswith(("<", f"{_OURS}/")) or "/pydantic/" in file:
        return False
    return not file.startswith(f"{_PYTHON}/") or any(each in file for each in _INSTALLED)
