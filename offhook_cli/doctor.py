"""`offhook doctor`: check everything that can be wrong in an installation."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from offhook.logs import printable
from offhook_cli.diagnosis import Diagnosis, Verdict, examine, write_bundle
from offhook_cli.options import Json
from offhook_cli.screen import counted, fail, note, print_json

_STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(
    pbx: Annotated[
        bool, typer.Option("--pbx", help="Also sign in to the API of each PBX.")
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write an archive (.tar.gz) for a bug report, without secrets.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check everything that can be wrong in an installation, and say what to do.

    Checks the configuration and its plugins, the Redis servers, the inbox, the
    workers, each handler, the receiver and its journal, and this machine. It
    changes nothing. Run it on each machine, as the user of the receiver or the
    workers. It sends a test callback, which creates no event, to public_url.

    \b
      pass   it is as it should be
      warn   it works, and should be looked at
      fail   it does not work, or loses events

    The output has no secrets. In a bundle, texts of the configuration that may
    be secrets, and phone numbers, are replaced by ***. Exits with 1 if a check
    fails.

    \b
    Examples:
      offhook doctor
      offhook doctor --pbx
      offhook doctor --json | jq -e '.counts.fail == 0 and .counts.warn == 0'
      offhook doctor --bundle offhook-report.tar.gz
    """
    if bundle is not None and bundle.exists():
        fail(f"{bundle} already exists; nothing was written.")
    seen = examine(ask_pbx=pbx)
    if as_json:
        print_json(seen.diagnosis.as_dict())
    else:
        _print(seen.diagnosis)
    if bundle is not None:
        try:
            write_bundle(bundle, seen)
        except OSError as error:
            fail(f"cannot write {bundle}: {error.strerror}")
        note(f"Wrote {bundle}. Look through it before you send it.")
    if not seen.diagnosis.healthy:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis) -> None:
    """Print a line for each finding, wrapped on a terminal and in one piece in a pipe."""
    console = Console(highlight=False)
    wraps = console.is_terminal or "COLUMNS" in os.environ
    for number, part in enumerate(diagnosis.parts):
        if number:
            console.print()
        console.print(Text(printable(part.part), style="bold"), soft_wrap=not wraps)
        for each in part.findings:
            sentence = printable(each.sentence)
            if wraps:
                line = Table.grid(padding=(0, 1), pad_edge=True)
                line.add_row(Text(each.verdict, style=_STYLES[each.verdict]), Text(sentence))
                console.print(line)
            else:
                console.print(Text(f" {each.verdict} {sentence}"), soft_wrap=True)
    console.print()
    console.print(_summary(diagnosis), soft_wrap=not wraps)


def _summary(diagnosis: Diagnosis) -> Text:
    passed, warned, failed = (diagnosis.count(each) for each in Verdict)
    text = f"{counted(failed, 'failure')}, {counted(warned, 'warning')}, {passed} passed"
    worst = Verdict.FAIL if failed else Verdict.WARN if warned else Verdict.PASS
    return Text(text, style=_STYLES[worst])
