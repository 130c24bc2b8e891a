"""An installation with a console for many users, whose processes are measured."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from benchmarks.machine import SECRET, Running, listens, offhook, running, until
from offhook.settings import ConsoleUser, Settings
from offhook.settings.console_table import ConsoleSettings
from offhook_cli.embedded_server import free_port
from offhook_console.passwords import make_token
from offhook_console.sessions import Sessions

_HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA"  # of no password: all sign in by cookie


@dataclass
class Installation:
    """The ports, and the processes that are measured."""

    receiver: int
    console: int
    console_process: Running | None
    receiver_process: Running
    cookie: str
    tokens: list[str] = field(default_factory=list)

    def memory(self) -> int:
        """The memory of the console, in bytes."""
        return sum(self.console_process.memory().values()) if self.console_process else 0

    def cpu(self) -> float:
        """The CPU seconds that the console has used."""
        return self.console_process.cpu() if self.console_process else 0.0


def phone(number: int) -> str:
    """The extension of a user."""
    return f"0003*{1000 + number}"


@contextmanager
def installation(
    url: str, listeners: int, *, console: bool = True, more: str = ""
) -> Iterator[Installation]:
    """Run receiver, workers and, if wanted, a console, on the same core, with an empty inbox.

    Args:
        listeners: number of users, each with an extension and a token.
        more: settings.
    """
    made = [make_token() for _ in range(listeners)]
    tables = "".join(
        f'[console.users.u{n}]\nrole = "agent"\npassword = "{_HASH}"\nextensions = ["{phone(n)}"]\n'
        f'[console.users.u{n}.tokens.pop]\nhash = "{hashed}"\nscopes = ["live", "numbers"]\n'
        for n, (_, hashed) in enumerate(made)
    )
    tables += f'[console.users.wall]\nrole = "supervisor"\npassword = "{_HASH}"\n'
    ports = free_port(), free_port()
    with Redis.from_url(url) as client:
        client.flushall()
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "offhook.toml"), Path(folder, "log")
        handler = '[handlers.crm]\nuse = "benchmarks.handlers:nothing"\n'
        file.write_text(
            f"secret = {SECRET!r}\nredis_url = {url!r}\nprocesses = 1\n{more}{handler}{tables}"
        )
        progress = Path(folder, "progress")
        progress.write_bytes(bytes(8))
        environment = {"OFFHOOK_CONFIG": str(file), "PROGRESS": str(progress)}
        with (
            running(offhook("serve", "--port", str(ports[0])), log, environment) as receiver,
            running(offhook("work"), log, environment),
        ):
            until(lambda: listens(ports[0]), "the receiver listens")
            if not console:
                yield Installation(ports[0], 0, None, receiver, "")
                return
            command = offhook("console", "--port", str(ports[1]))
            with running(command, log, environment) as process:
                until(lambda: listens(ports[1]), "the console listens")
                yield Installation(
                    *ports, process, receiver, cookie_of("wall"), [token for token, _ in made]
                )


def cookie_of(user: str) -> str:
    """The cookie of a user of the installation."""
    users = {user: ConsoleUser(password=_HASH, role="supervisor")}  # type: ignore[arg-type]
    settings = Settings.model_construct(secret=_Secret(), console=ConsoleSettings(users=users))
    return f"offhook={Sessions(settings).value(user)}"


class _Secret:
    """The secret, as the settings have it."""

    def get_secret_value(self) -> str:
        return SECRET
