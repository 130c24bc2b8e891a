"""Tryton (trytond, with the module party) on PostgreSQL: run, and looked into."""

import os
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, LiteralString

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.ports import free_port
from tests.postgres import postgres
from tests.real_crm.real import RealSide, serving
from tests.workers.handlers.crm.serving import Answered, Asked
from tests.workers.handlers.crm.side import Record
from workers.handlers.crm.tryton import Tryton

PASSWORD = "hush-offhook-1"
ADMIN_PASSWORD = "hush-admin-1"
UNKNOWN = "Unknown callers"

# Only what is in `www` is served to a GET.
CONFIGURATION = """
[database]
uri = {database}
[web]
listen = 127.0.0.1:{port}
root = {folder}/www
[session]
max_attempt = 2
"""


@dataclass(frozen=True)
class Server:
    """A running Tryton.

    Attributes:
        folder: where the handler may keep its session.
        database: the address of the database.
        rpc: the path of its RPC.
        jane: the id of a user.
        romania: the id of a country.
    """

    url: str
    folder: Path
    database: str
    rpc: str
    jane: str
    romania: int


@contextmanager
def running(venv: Path, folder: Path) -> Iterator[Server]:
    """Run Tryton from `venv`, with its data in `folder`."""
    with postgres() as data:
        with psycopg.connect(data.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE crm")
        yield from _serving(venv, folder, data.url.removesuffix("postgres"))


def _serving(venv: Path, folder: Path, database: str) -> Iterator[Server]:
    port = free_port()
    (folder / "www").mkdir()
    (folder / "www" / "index.html").write_text("ready")
    (folder / "password").write_text(ADMIN_PASSWORD)
    (folder / "trytond.conf").write_text(
        CONFIGURATION.format(folder=folder, database=database, port=port)
    )
    for steps in (
        ["--all", "--email=admin@example.com"],
        ["-u", "party", "--activate-dependencies"],
    ):
        subprocess.run(
            [venv / "bin" / "trytond-admin", "-c", folder / "trytond.conf", "-d", "crm", *steps],
            env={**os.environ, "TRYTONPASSFILE": str(folder / "password")},
            timeout=300,
            check=True,
        )
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [
        venv / "bin" / "trytond",
        "-c",
        folder / "trytond.conf",
        "-d",
        "crm",
    ]
    with serving(command, f"{url}/", folder, {}):
        rpc = "/crm/rpc/"
        if httpx.post(url + rpc, json={}, timeout=60).status_code == 405:
            rpc = "/crm/"  # Tryton 7
        asking = Asking(url + rpc)
        offhook = {"name": "Offhook", "login": "offhook", "password": PASSWORD}
        jane = {"name": "Jane Roe", "login": "jane", "email": "jane@example.com"}
        users = asking("res.user.create", [offhook, jane | {"password": "hush-jane-1"}])
        (romania,) = asking("country.country.create", [{"name": "Romania", "code": "RO"}])
        yield Server(url, folder, f"{database}crm", rpc, str(users[1]), romania)


class Asking:
    """Requests to Tryton as a user, by default the administrator."""

    def __init__(self, url: str, login: str = "admin", password: str = ADMIN_PASSWORD) -> None:
        self._url = url
        self._headers: dict[str, str] = {}
        id, key, *_ = self._ask("common.db.login", login, {"password": password}, "en")  # noqa: A001
        self._headers = session(login, id, key)

    def __call__(self, method: str, *params: Any, **context: Any) -> Any:
        """What a method of a model answers."""
        return self._ask(f"model.{method}", *params, context)

    def _ask(self, method: str, *params: Any) -> Any:
        request = {"id": 1, "method": method, "params": params}
        answer = httpx.post(self._url, json=request, headers=self._headers, timeout=60)
        answer.raise_for_status()
        answered = answer.json()
        if "error" in answered:
            raise RuntimeError(answered["error"])
        return answered["result"]


def session(login: str, id: int, key: str) -> dict[str, str]:  # noqa: A002
    """The header that shows a session."""
    return {"Authorization": f"Session {b64encode(f'{login}:{id}:{key}'.encode()).decode()}"}


class TrytonSide(RealSide):
    """Tryton as the tests see it, with the party that the docs have made."""

    handler = Tryton
    find = "POST model.party.contact_mechanism."
    write = "POST model.ir.note.create"
    too_many = Answered(429)
    broken = Answered(
        200, {"id": 0, "error": ["UserError", ["The value of the field is too long.", "", None]]}
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server.url)
        self.server = server
        self.jane_id = server.jane  # type: ignore[misc]  # made when the server was started
        self.ask = Asking(server.url + server.rpc)
        self._tokens = mkdtemp(dir=server.folder)

    def line(self, asked: Asked) -> str:
        return f"{asked.method} {asked.json['method']}"

    def options(self) -> dict[str, Any]:
        return {
            "database": "crm",
            "login": "offhook",
            "password": PASSWORD,
            "tokens": self._tokens,
            "base_url": self.url,
        }

    def headers(self) -> dict[str, str]:
        return {}

    def wrong_options(self) -> dict[str, Any]:
        return self.options() | {"password": "hush-wrong"}

    def empty(self) -> None:
        self.forget_records()
        self.ask("party.party.delete", self.ask("party.party.search", [], active_test=False))
        self.sql("DELETE FROM res_user_login_attempt")
        self.ask("party.party.create", [{"name": UNKNOWN}])

    def add_contact(self, name: str, phone: str) -> str:
        """As a phone number, if Tryton takes it for one; else as something else."""
        try:
            return self.add(name, phone)
        except RuntimeError:
            return self.add(name, phone, "other")

    def add(self, name: str, number: str, kind: str = "phone") -> str:
        """A party with a number of this kind."""
        mechanisms = [["create", [{"type": kind, "value": number}]]]
        party = {"name": name, "contact_mechanisms": mechanisms}
        (made,) = self.ask("party.party.create", [party])
        return str(made)

    def add_in_romania(self, name: str, number: str) -> str:
        """A party with an address there, and then a telephone number."""
        address = {"country": self.server.romania}
        party = {"name": name, "addresses": [["create", [address]]]}
        (made,) = self.ask("party.party.create", [party])
        mechanism = {"party": made, "type": "phone", "value": number}
        self.ask("party.contact_mechanism.create", [mechanism])
        return str(made)

    def delete_contact(self, contact: str) -> None:
        self.ask("party.party.delete", [int(contact)])

    def index(self) -> None:
        """Its search knows what is new."""

    def contacts(self) -> dict[str, str]:
        found = self.ask(
            "party.party.search_read", [["name", "!=", UNKNOWN]], 0, None, None, ["name"]
        )
        return {str(party["id"]): party["name"] for party in found}

    def records(self) -> list[Record]:
        notes: dict[str, list[dict[str, Any]]] = {}
        for note in self.notes():
            key = note["message"].rpartition("\nCall ")[2]
            notes.setdefault(key, []).append(note)
        return [self._record(key, found) for key, found in notes.items()]

    def _record(self, key: str, notes: list[dict[str, Any]]) -> Record:
        (text,) = {note["message"] for note in notes}
        places = [note["resource"].removeprefix("party.party,") for note in notes]
        assert len(set(places)) == len(places), "two notes of a call on one party"
        (unknown,) = self.ask("party.party.search", [["name", "=", UNKNOWN]])
        assert str(unknown) not in places or len(places) == 1
        return Record(
            key=key,
            title=text.partition("\n")[0],
            ended="\nEnded " in text,
            contacts=frozenset(places) - {str(unknown)},
            owner=self.jane_id if re.search("^User: Jane Roe$", text, re.MULTILINE) else None,
        )

    def forget_records(self) -> None:
        self.ask("ir.note.delete", self.ask("ir.note.search", []))

    def notes(self) -> list[dict[str, Any]]:
        """All notes as they lie in the database, the oldest first."""
        return self.sql("SELECT * FROM ir_note ORDER BY id")

    def sql(self, statement: LiteralString, *values: object) -> list[dict[str, Any]]:
        """What no request can see or do."""
        with psycopg.connect(self.server.database, row_factory=dict_row) as connection:
            found = connection.execute(statement, values)
            return found.fetchall() if found.description else []
