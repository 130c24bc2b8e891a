"""What an integrator reads about a wrong configuration: what, where, and what to do."""

from pathlib import Path

import pytest

from tests.bad_situations.conftest import Check

NOT_A_URL = (
    "redis_url: is not a valid Redis URL; is the password percent-encoded? "
    "(%40 for @, %2F for /, %23 for #, %3A for :, %3F for ?)"
)
NO_JOBS = (
    "rq_url: RQ cannot keep its jobs on a cluster: set it to a Redis or Valkey server, such as "
    "redis://HOST:6379/0"
)
NO_DATABASE = "redis_url: must end in the number of a database, such as /0"
TYPES = (
    "dial-in, dial-out, hangup, answer-in, answer-out, call-started, call-answered, call-ended, "
    "missed-call, call-corrected, call-record, extension-silent, phone-unregistered, "
    "phone-registered, daily-summary, handler-failing, handler-recovered, dead-letter, "
    "journal-used, inbox-filling, registration-lost"
)
HANDLERS = (
    "agents, bottlecrm, console, file, hubspot, notify, pipedrive, salesforce, sql, stream, "
    "tryton, webhook, zoho"
)
LOOKUPS = "bottlecrm, csv, hubspot, pipedrive, salesforce, sql, tryton, zoho"

SETTINGS = {
    # Unknown names
    "partition = 2": "partition: there is no such setting; did you mean 'partitions'?",
    "colour = 'red'": "colour: there is no such setting",
    "use = 'webhook'": "use: there is no such setting; it belongs into a table [handlers.NAME]",
    "host = 'x'": "host: there is no such setting; it belongs into a table [pbx.NAME]",
    "[handler.crm]\nuse = 'console'": (
        "handler: there is no such setting; did you mean 'handlers'?"
    ),
    # Wrong values
    "secret = 5": "secret: must be a text, in quotes",
    "secret = 'short'": ("secret: is shorter than 32 characters; `offhook init` makes a good one"),
    "secret_file = 'nope'": "secret_file: cannot read HERE/nope: No such file or directory",
    "secret_file = 5": "secret_file: must be a path, in quotes",
    "secret_file = '.'": "secret_file: cannot read HERE: Is a directory",
    "previous_secret = 'x'": (
        "previous_secret: is shorter than 32 characters; `offhook init` makes a good one"
    ),
    "public_url = 'offhook.example.com'": (
        "public_url: must be a URL such as https://offhook.example.com, "
        "without a question mark, # or blank"
    ),
    "durability = 'safe'": "durability: must be 'server', 'disk' or 'replica'",
    "partitions = 'two'": "partitions: must be a whole number",
    "partitions = 2.5": "partitions: must be a whole number",
    "partitions = 0": "partitions: must be 1 or more",
    "keep_days = 0": "keep_days: must be more than 0",
    "keep_days = nan": "keep_days: must be 36500 or less",
    "journal = 5": "journal: must be a text, in quotes",
    "journal_size = 5": "journal_size: must be 1000000 or more",
    "region = 'UK'": "region: 'UK' is not the code of a country: write 'GB'",
    "region = 'gb'": "region: 'gb' is not the code of a country: write 'GB'",
    "region = 'EL'": "region: 'EL' is not the code of a country: write 'GR'",
    "region = 'Germany'": (
        "region: 'Germany' is not the code of a country: "
        "write its two letters (ISO 3166), such as 'GB'"
    ),
    "daily_summary = '6pm'": "daily_summary: must be a time of day, such as 18:00 or 07:30",
    # The URL of the server
    "redis_url = 'localhost:6379'": (
        "redis_url: must begin with redis://, rediss://, unix://, sentinel://, sentinels://, "
        "cluster:// or clusters://"
    ),
    "redis_url = 'cluster://host/1'\nrq_url = 'redis://host/0'": (
        "redis_url: must not name a database: a cluster has only database 0"
    ),
    "redis_url = 'cluster://user:word@host/'\nrq_url = 'redis://host/0'": NOT_A_URL,
    "redis_url = 'cluster://host:6379,other:6379/'": NO_JOBS,
    "redis_url = 'redis://host/0'\nrq_url = 'clusters://host/'": NO_JOBS,
    "redis_url = 'redis://:p@ss#word@host:6379/0'": NOT_A_URL,
    "redis_url = 'redis://:pa/ss@host:6379/0'": NOT_A_URL,
    "redis_url = 'redis://:pa?ss@host:6379/0'": NOT_A_URL,
    "redis_url = 'redis://:pa[ss@host:6379/0'": NOT_A_URL,
    "redis_url = 'redis://host:port/0'": NOT_A_URL,
    "redis_url = 'sentinel://host'": NOT_A_URL,
    "redis_url = 'redis://host/main'": NO_DATABASE,
    "redis_url = 'sentinel://host/name/main'": NO_DATABASE,
    # PBXs
    "pbx.main = 'x'": "pbx.main: must be a table",
    "pbx.'a b'.token = 'x'": (
        "pbx.a b: must be named with letters, digits, - and _",
        "pbx.a b: needs a host, such as https://pbx.example.com; "
        "without access to its API, remove token",
    ),
    "[pbx.main]\nzone = 'UTC'": (
        "pbx.main: needs a host, such as https://pbx.example.com; "
        "without access to its API, remove zone"
    ),
    "[pbx.main]\nhost = 'https://x'": (
        "pbx.main: needs either client_id and client_secret, or a token"
    ),
    "[pbx.main]\nhost = 'https://x'\ntoken_file = 'nope'": (
        "pbx.main.token_file: cannot read HERE/nope: No such file or directory"
    ),
    "[pbx.main]\nhost = 'x'\ntoken = 'y'": (
        "pbx.main.host: must be an address alone, such as https://pbx.example.com"
    ),
    "[pbx.main]\nhost = 'https://x'\ntoken = 'y'\nzone = 'Europe/Berlinn'": (
        "pbx.main.zone: is not a time zone such as Europe/Berlin; did you mean 'Europe/Berlin'?"
    ),
    "[pbx.main]\nhots = 'x'": "pbx.main.hots: there is no such setting; did you mean 'host'?",
    "[pbx.main]\ndialect = 'telphin'\ntoken = 'x'": (
        "pbx.main: Offhook does not speak the API of telphin: remove token"
    ),
    # Tables of handlers
    "handlers = 5": "handlers: must be a table",
    "[handlers]\ncrm = 'webhook'": "handlers.crm: must be a table",
    "[handlers.crm]": "handlers.crm.use: is not set, and must be",
    "[handlers.calls]\nuse = 'console'": (
        "handlers.calls: this name is reserved; choose another one"
    ),
    "[handlers.CRM]\nuse = 'console'": (
        "handlers.CRM: must be named with lower-case letters, digits, - and _"
    ),
    "[handlers.crm]\nuse = 'console'\ntimout = 3": (
        "handlers.crm.timout: there is no such setting; did you mean 'timeout'?"
    ),
    "[handlers.crm]\nuse = 'console'\nfolder = 'x'": (
        "handlers.crm.folder: there is no such setting; "
        "the options of a plugin belong under [handlers.crm.options]"
    ),
    "[handlers.crm]\nuse = 'console'\nevents = 'hangup'": (
        "handlers.crm.events: must be a list, in [ and ]"
    ),
    "[handlers.crm]\nuse = 'console'\nevents = ['hangups']": (
        f"handlers.crm.events: there is no event type 'hangups', only {TYPES}, and the groups "
        "raw, calls, extensions, summaries, trouble; did you mean 'hangup'?"
    ),
    "[handlers.crm]\nuse = 'console'\nretry = [0]": "handlers.crm.retry.0: must be 1 or more",
    "[handlers.crm]\nuse = 'console'\nretry = ['x']": "handlers.crm.retry.0: must be a number",
    "[handlers.crm]\nuse = 'console'\nstart = 'later'": (
        "handlers.crm.start: must be 'now' or 'earliest'"
    ),
    "[handlers.crm]\nuse = 'console'\ndirection = 'both'": (
        "handlers.crm.direction: must be 'in', 'out' or 'internal'"
    ),
    "[handlers.crm]\nuse = 'console'\noptions = 5": "handlers.crm.options: must be a table",
    "[handlers.crm]\nuse = 'webhok'": (
        f"handlers.crm.use: no handler is called 'webhok': installed are {HANDLERS}; "
        "write your own as package.module:name; did you mean 'webhook'?"
    ),
    "[lookups.crm]\nuse = 'cvs'": (
        f"lookups.crm.use: no lookup is called 'cvs': installed are {LOOKUPS}; "
        "write your own as package.module:name"
    ),
    # Options
    "[handlers.crm]\nuse = 'webhook'": "handlers.crm.options.url: is not set, and must be",
    "[handlers.crm]\nuse = 'webhook'\noptions.url = 'ftp://x'": (
        "handlers.crm.options.url: must begin with http:// or https:// and name a host"
    ),
    "[handlers.crm]\nuse = 'webhook'\noptions = {url = 'https://x', secret_file = 'no'}": (
        "handlers.crm.options.secret_file: cannot read HERE/no: No such file or directory"
    ),
    "[handlers.crm]\nuse = 'webhook'\noptions = {url = 'https://x', timeout = 'x'}": (
        "handlers.crm.options.timeout: must be a number"
    ),
    "[handlers.log]\nuse = 'file'\noptions.path = ''": "handlers.log.options.path: is empty",
    "[handlers.log]\nuse = 'file'\noptions.path = 'no/x'": (
        "handlers.log.options.path: there is no folder HERE/no: create it, for the workers' user"
    ),
    "[handlers.log]\nuse = 'file'\noptions = {path = 'x', format = 'xml'}": (
        "handlers.log.options.format: must be 'jsonl' or 'csv'"
    ),
    "[handlers.log]\nuse = 'sql'\noptions.url = 'nonsense'": (
        "handlers.log.options.url: must be a database URL, such as sqlite:///calls.db "
        "or postgresql://user:password@host/db"
    ),
    "[handlers.log]\nuse = 'sql'\noptions.url = 'sqlite://'": (
        "handlers.log.options.url: is a database in memory, which ends with its process: "
        "name a file"
    ),
    "[handlers.staff]\nuse = 'notify'\noptions.urls = []": (
        "handlers.staff.options.urls: has too few entries: write 1 or more"
    ),
    # Lookups and their data
    "[lookups.staff]\nuse = 'csv'": "lookups.staff.options.path: is not set, and must be",
    "[lookups.staff]\nuse = 'csv'\noptions.path = 'no.csv'": (
        "lookups.staff: HERE/no.csv cannot be read: No such file or directory"
    ),
    "[lookups.staff]\nuse = 'csv'\noptions = {path = 'staff.csv', name = 'Nmae'}": (
        "lookups.staff: HERE/staff.csv has no column Nmae in its first line: "
        "name its columns in the options number and name; did you mean 'name'?"
    ),
    "[lookups.staff]\nuse = 'csv'\noptions = {path = 'staff.csv', number = ['Mobile', 'Nubmer']}": (
        "lookups.staff: HERE/staff.csv has no column Mobile, Nubmer in its first line: "
        "name its columns in the options number and name; did you mean 'number'?"
    ),
    "[lookups.staff]\nuse = 'csv'\noptions = {path = 'staff.csv', name = 'Firma'}": (
        "lookups.staff: HERE/staff.csv has no column Firma in its first line: "
        "name its columns in the options number and name"
    ),
    "[lookups.staff]\nuse = 'csv'\noptions.path = 'latin.csv'": (
        "lookups.staff: HERE/latin.csv, line 2: is not UTF-8: save it as CSV UTF-8"
    ),
    "[lookups.staff]\nuse = 'csv'\ntimeout = 99\noptions.path = 'staff.csv'": (
        "lookups.staff.timeout: must be 10 or less"
    ),
    # Files that are not TOML
    "secret = ": (
        "HERE/offhook.toml, at its end: is not TOML: invalid value: write a text in quotes"
    ),
    "public_url = https://x": (
        "HERE/offhook.toml, line 2: is not TOML: invalid value: write a text in quotes"
    ),
    "[handlers.crm\nuse = 'x'": (
        "HERE/offhook.toml, line 2: is not TOML: expected ']' at the end of a table declaration"
    ),
    "partitions = 1\npartitions = 2\nsettle = 1": (
        "HERE/offhook.toml, line 3: a setting or table appears twice: remove one"
    ),
    "[handlers.crm]\nuse = 'console'\n[handlers.crm]\nuse = 'file'\n": (
        "HERE/offhook.toml, line 4: a setting or table appears twice: remove one"
    ),
    "# M\xfcller\n": "HERE/offhook.toml, line 2: is not UTF-8: save it as UTF-8",
}


@pytest.mark.parametrize("text", SETTINGS)
def test_a_wrong_configuration_is_explained(text: str, check: Check, folder: Path) -> None:
    (folder / "staff.csv").write_text("number,name\n")
    (folder / "latin.csv").write_bytes(b"number,name\n1,M\xfcller\n")
    wanted = SETTINGS[text]
    assert check(text) == ([wanted] if isinstance(wanted, str) else list(wanted))


ENCODINGS = {
    "utf-8-sig": "HERE/offhook.toml: begins with a byte order mark: save it as UTF-8 without it",
    "utf-16": "HERE/offhook.toml: is in UTF-16: save it as UTF-8",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_is_named(encoding: str, check: Check) -> None:
    assert check("partitions = 1\n".encode(encoding)) == [ENCODINGS[encoding]]


def test_all_faults_come_in_one_pass(check: Check) -> None:
    told = check(
        "secret_file = 'no'\nregion = 'UK'\npartitoins = 2\n"
        "[handlers.crm]\nuse = 'webhook'\nconcurrency = 0\noptions.urll = 'x'\n"
        "[handlers.log]\nuse = 'file'\noptions.path = 'no/x'\n"
        "[lookups.staff]\nuse = 'csv'\ntimeout = 99\noptions.pth = 'x'\n"
        "[pbx.main]\nhots = 'x'\ntoken_file = 'no'\n"
    )
    assert sorted(each.partition(": ")[0] for each in told) == [
        "handlers.crm.concurrency",
        "handlers.crm.options.url",
        "handlers.crm.options.urll",
        "handlers.log.options.path",
        "lookups.staff.options.path",
        "lookups.staff.options.pth",
        "lookups.staff.timeout",
        "partitoins",
        "pbx.main.hots",
        "pbx.main.token_file",
        "region",
        "secret_file",
    ]


def test_paths_are_relative_to_the_configuration(check: Check, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "staff.csv").write_text("number,name\n")
    (folder / "key").write_text("a-token\n")
    assert (
        check(
            "[handlers.log]\nuse = 'file'\noptions.path = 'sub/x'\n"
            "[handlers.calls-db]\nuse = 'sql'\noptions.url = 'sqlite:///sub/calls.db'\n"
            "[handlers.pause]\nuse = 'agents'\n[handlers.pause.options]\nhost = 'https://x'\n"
            "queues = ['0003*400']\ntoken_file = 'key'\nca_file = 'ca.pem'\n"
            "[lookups.staff]\nuse = 'csv'\noptions.path = 'staff.csv'\n"
        )
        == []
    )
