"""What Linux says about processes, which may end at any time."""

from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the child processes of a process; none if it has ended."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in found.split()]


def title(pid: int) -> str:
    """Return what `ps` shows of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").rstrip()
    except OSError:
        return ""


def processes() -> list[int]:
    """Return all of them."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def runs(pid: int) -> bool:
    """Return whether a process has not ended."""
    return session_of(pid) != 0


def session_of(pid: int) -> int:
    """Return the session of a process that runs; 0 if it has ended."""
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return 0
    return 0 if state == "Z" else int(session)
