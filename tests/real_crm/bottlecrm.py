"""BottleCRM (django-crm): run, and looked into."""

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from tests.ports import free_port
from tests.real_crm.real import RealSide, serving
from tests.workers.handlers.crm.serving import Answered
from tests.workers.handlers.crm.side import Record
from workers.handlers.crm.bottlecrm import BottleCrm

# Its own settings want PostgreSQL and a broker. Tables are made from the models, in 4 s; its
# migrations take 80 s. It counts the look-ups of a minute in its cache: only where a test says so.
SETTINGS = """
import os

from crm.settings import *
from django.core.cache.backends.locmem import LocMemCache

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["CRM_DATABASE"],
        "OPTIONS": {"timeout": 20},
    }
}
CELERY_BROKER_URL, CELERY_RESULT_BACKEND = "memory://", "cache+memory://"
CACHES = {"default": {"BACKEND": "crm_test_settings.Counting"}}


class Counting(LocMemCache):
    def get(self, key, default=None, version=None):
        return super().get(key, default, version) if os.path.exists("counting") else default


class _NoMigrations(dict):
    def __contains__(self, app):
        return True

    def __getitem__(self, app):
        return None


MIGRATION_MODULES = _NoMigrations()
"""

# What the docs say that the handler's token needs.
ALLOWED = tuple(
    f"{kind}:{right}"
    for kind in ("interactions", "contacts", "leads", "accounts")
    for right in ("read", "write")
)

# Prints what `Server` holds.
FIRST_DATA = """
import django

django.setup()

from accounts.models import Account
from common.models import Org, PersonalAccessToken, Profile
from django.contrib.auth import get_user_model

org = Org.objects.create(name="Acme", default_country="RO")
made = {}
for name, role in (("bot", "ADMIN"), ("jane", "USER")):
    user = get_user_model().objects.create(email=name + "@example.com", is_active=True)
    made[name] = Profile.objects.create(user=user, org=org, role=role, is_active=True)
print(PersonalAccessToken.generate(made["bot"], "offhook")[0])
print(PersonalAccessToken.generate(made["bot"], "tests")[0])
print(Account.objects.create(name="Phone calls", org=org).pk)
print(made["jane"].pk)
"""


@dataclass(frozen=True)
class Server:
    """A running BottleCRM.

    Attributes:
        token: the handler's; `all_token`: one that may do anything.
        account: the id of the account for calls without a contact; `jane`: of a user.
    """

    url: str
    database: Path
    token: str
    all_token: str
    account: str
    jane: str


@contextmanager
def running(venv: Path, folder: Path) -> Iterator[Server]:
    """Run BottleCRM from `venv`, with its data in `folder`."""
    (folder / "crm_test_settings.py").write_text(SETTINGS)
    settings = {
        "PYTHONPATH": str(folder),
        "DJANGO_SETTINGS_MODULE": "crm_test_settings",
        "CRM_DATABASE": str(folder / "crm.sqlite3"),
        "SECRET_KEY": "a secret for tests, forty characters long",
        "ENV_TYPE": "dev",
        "ALLOWED_HOSTS": "127.0.0.1",
    }

    def run(*command: str) -> str:
        return subprocess.run(
            [venv / "bin" / command[0], *command[1:]],
            cwd=folder,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        ).stdout

    run("django-admin", "migrate", "--run-syncdb", "--verbosity=0")
    made = run("python", "-c", FIRST_DATA).split()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    uvicorn: list[str | Path] = [
        venv / "bin" / "uvicorn",
        "crm.asgi:application",
        "--port",
        str(port),
    ]
    with serving(uvicorn, f"{url}/healthz/", folder, settings):
        yield Server(url, folder / "crm.sqlite3", *made)


class BottleCrmSide(RealSide):
    """BottleCRM as the tests see it."""

    handler = BottleCrm
    find = "POST /api/contacts/duplicates/"
    write = "POST /api/interactions/"
    owners = False
    severals = ("newest", "none")
    too_many = Answered(429, {"detail": "Request was throttled. Expected available in 17 seconds."})
    broken = Answered(400, {"error": True, "errors": {"subject": ["Not a valid string."]}})

    def __init__(self, server: Server) -> None:
        super().__init__(server.url)
        self._server = server
        self._counting = server.database.parent / "counting"

    def options(self) -> dict[str, Any]:
        server = self._server
        return {"token": server.token, "account": server.account, "base_url": self.url}

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._server.token}"}

    def wrong_options(self) -> dict[str, Any]:
        return self.options() | {"token": "bcrm_pat_hush"}

    def empty(self) -> None:
        for table in ("interaction", "contacts", "lead"):
            self.sql(f"DELETE FROM {table}")  # noqa: S608
        self.sql("UPDATE organization SET default_country = 'RO', modules_off = '[]'")
        self.allow(*ALLOWED)
        self._counting.unlink(missing_ok=True)

    def add_contact(self, name: str, phone: str) -> str:
        first, _, last = name.partition(" ")
        taken = phone if len(phone) >= 7 else "+40310000000"  # none that is shorter is typed in
        contact = {"first_name": first, "last_name": last or "-", "phone": taken}
        made = str(self.call("POST", "contacts/", contact)["id"])
        if taken != phone:
            self.sql("UPDATE contacts SET phone = ? WHERE id = ?", phone, UUID(made).hex)
        return made

    def delete_contact(self, contact: str) -> None:
        self.call("DELETE", f"contacts/{contact}/")

    def contacts(self) -> dict[str, str]:
        rows = self.sql("SELECT id, first_name || ' ' || last_name AS name FROM contacts")
        return {_id(row["id"]): row["name"] for row in rows}

    def records(self) -> list[Record]:
        return [
            Record(
                key=each["body"].partition("\n")[0].rpartition("Call ")[2],
                title=each["subject"],
                ended=each["outcome"] != "",
                contacts=frozenset(
                    _id(each[home]) for home in ("contact_id", "lead_id") if each[home]
                ),
            )
            for each in self.interactions()
        ]

    def forget_records(self) -> None:
        self.sql("DELETE FROM interaction")

    def interactions(self) -> list[dict[str, Any]]:
        """All calls as they lie in the database, the oldest first."""
        return self.sql("SELECT * FROM interaction ORDER BY created_at")

    def allow(self, *scopes: str) -> None:
        """What the handler's token may do from now on."""
        self.sql(
            "UPDATE personal_access_token SET scopes = ? WHERE name = 'offhook'", json.dumps(scopes)
        )

    def count(self) -> None:
        """Have it count look-ups from now on."""
        self._counting.touch()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send a request to BottleCRM itself, as an administrator."""
        answer = httpx.request(
            method,
            f"{self._server.url}/api/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._server.all_token}"},
            timeout=60,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def sql(self, statement: str, *values: str) -> list[dict[str, Any]]:
        """What is behind BottleCRM's back."""
        with closing(sqlite3.connect(self._server.database, timeout=20)) as connection, connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]


def _id(stored: str) -> str:
    """As the API writes it; SQLite holds the digits alone."""
    return str(UUID(stored))
