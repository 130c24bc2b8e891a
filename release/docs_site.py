"""The documentation as a site: the pages of docs/, and a reference made from the code.

pages of the repository → **docs_site** → Zensical → build/site
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from inspect import cleandoc, getdoc
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
from pydantic import BaseModel
from typer.main import get_command

from offhook.event import GROUPS, CallEvent, EventType
from offhook.settings import Settings
from offhook.settings.console_table import (
    ConsoleSettings,
    ConsoleToken,
    ConsoleUser,
    OidcSettings,
)
from offhook.settings.setting_tables import HandlerSettings, LookupSettings, PbxSettings
from offhook.settings.tenants import TenantLimits, TenantSettings
from offhook_cli import COMMANDS, app, load

ROOT = Path(__file__).parents[1]
OUTSIDE = {  # pages that are not in docs/
    "README.md": "readme.md",
    "deploy/README.md": "deploy.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "vulnerabilities.md",
}
TABLES: dict[str, type[BaseModel]] = {
    "": Settings,
    "[handlers.NAME]": HandlerSettings,
    "[lookups.NAME]": LookupSettings,
    "[pbx.NAME]": PbxSettings,
    "[tenants.NAME]": TenantSettings,
    "[tenants.NAME.limits]": TenantLimits,
    "[console]": ConsoleSettings,
    "[console.oidc]": OidcSettings,
    "[console.users.NAME]": ConsoleUser,
    "[console.users.NAME.tokens.NAME]": ConsoleToken,
}


def main() -> None:
    pages = ROOT / "build" / "docs"
    write(pages)
    site = ROOT / "build" / "site"
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    subprocess.run(command, cwd=ROOT, check=True)
    print(f"{site}/index.html")


def write(folder: Path) -> None:
    """Write the pages of the site into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.md"))
    for source, page in places().items():
        target = folder / page
        target.write_text(relinked((ROOT / source).read_text(), Path(source)))
    (folder / "reference").mkdir()
    for name, text in (("commands", commands), ("settings", settings), ("events", events)):
        (folder / "reference" / f"{name}.md").write_text("\n".join(text()) + "\n")


def places() -> dict[str, str]:
    """Where each page of the repository is in the site."""
    return OUTSIDE | {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")}


def relinked(text: str, source: Path) -> str:
    """A page with the site's links. A link to what the site does not have becomes text."""
    known = places()

    def link(found: re.Match[str]) -> str:
        words, target = found[1], found[2]
        file, _, anchor = target.partition("#")
        if "://" in target or not file:
            return found[0]
        path = os.path.normpath(source.parent / file)
        if path in known:
            return f"[{words}]({known[path]}{'#' if anchor else ''}{anchor})"
        if path.startswith("docs/"):  # a picture, or a file beside the pages
            return f"[{words}]({path.removeprefix('docs/')})"
        return words

    parts = re.split(r"(^```.*?^```\n)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [re.sub(r"\[([^]]*)\]\(([^)\s]+)\)", link, part) for part in parts[::2]]
    return "".join(parts)


def commands() -> Iterator[str]:
    """The page of all commands: what their `--help` prints."""
    yield "# Commands\n"
    yield from block(usage(get_command(app), "offhook"))
    for name in COMMANDS:
        yield from of_command(load(name), f"offhook {name}")


def of_command(command: click.Command, name: str) -> Iterator[str]:
    yield f"\n## {name}\n"
    yield from block(usage(command, name))
    for each in getattr(command, "commands", {}).values():
        yield from of_command(each, f"{name} {each.name}")


def usage(command: Any, name: str) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    context.terminal_width = 96
    command.epilog = None  # where the pages are on this machine
    text: str = context.get_help()
    return text


def block(text: str) -> Iterator[str]:
    yield "```text"
    yield "\n".join(line.rstrip() for line in text.strip().splitlines())
    yield "```"


def settings() -> Iterator[str]:
    """The page of all settings, by table of offhook.toml."""
    yield "# Settings\n"
    yield "`offhook init` writes an `offhook.toml` with all of these settings. Those at the top"
    yield "level can also come from the environment (`OFFHOOK_REDIS_URL`). Any text can be read"
    yield "from a file: `NAME_file`, or `OFFHOOK_NAME_FILE`."
    for name, model in TABLES.items():
        yield f"\n## {f'`{name}`' if name else 'Top level'}\n"
        yield "| setting | default | meaning |\n| --- | --- | --- |"
        for field, about in model.model_fields.items():
            yield f"| `{field}` | {default(about)} | {cell(about.description or '')} |"


def default(about: Any) -> str:
    """The default of a setting as it is written in `offhook.toml`."""
    if about.is_required():
        return "required"
    value = about.get_default(call_default_factory=True)
    if value in (None, "", {}) or isinstance(value, BaseModel):
        return "not set"
    return f"`{cell(json.dumps(value, default=str))}`"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def events() -> Iterator[str]:
    """The page of event types and the fields of an event."""
    yield "# Events\n"
    yield "[Handlers](../handlers.md) says how to choose them, [Calls](../calls.md) what those"
    yield "about calls mean.\n"
    yield "| event type | groups |\n| --- | --- |"
    for event in EventType:
        groups = (f"`{name}`" for name, types in GROUPS.items() if event in types)
        yield f"| `{event.value}` | {', '.join(groups)} |"
    yield "\n## Fields\n"
    yield "| field | type |\n| --- | --- |"
    for field in msgspec.structs.fields(CallEvent):
        kind = re.sub(r"\b(?:typing|datetime|offhook\.\w+)\.", "", shown(field.type))
        yield f"| `{field.name}` | `{cell(kind)}` |"
    yield ""
    yield from block(cleandoc(getdoc(CallEvent) or ""))


def shown(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


if __name__ == "__main__":
    main()
