#!/usr/bin/env python3
"""Show on the desktop who calls: `OFFHOOK_TOKEN=ofh_... ./screen_pop.py https://console.example.com`.

Needs Python and notify-send (libnotify 0.8 or newer), nothing else.
"""

import html
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

SILENCE = 60  # seconds after which the connection counts as broken; the console sends more often
TITLES = {
    "ringing": "Your phone rings",
    "answered": "You are talking",
    "taken": "Taken by {by}",
    "missed": "Missed",
    "ended": "Ended",
}


class Stream:
    """The live feed. It goes on from the last message after a break."""

    def __init__(self, console: str, token: str) -> None:
        self._url = f"{console.rstrip('/')}/live"
        self._headers = {"Authorization": f"Bearer {token}"}

    def pops(self) -> Iterator[dict[str, Any]]:
        """The screen pops, until the connection breaks."""
        request = urllib.request.Request(self._url, headers=self._headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=SILENCE) as stream:  # noqa: S310
            for line in stream:
                field, _, value = line.decode().rstrip("\r\n").partition(": ")
                if field == "id":
                    self._headers["Last-Event-ID"] = value
                elif field == "data":
                    yield json.loads(value)


class Desktop:
    """Notifications, one for each call: a later one replaces it."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def show(self, pop: dict[str, Any]) -> None:
        who = " ".join(filter(None, (pop["name"], pop["number"]))) or "withheld number"
        title = TITLES.get(pop["state"], pop["state"]).format(by=pop["by"])
        command = ["notify-send", "--app-name=Offhook", "--icon=call-start", "--print-id"]
        if pop["call"] in self._ids:
            command.append(f"--replace-id={self._ids[pop['call']]}")
        done = subprocess.run(
            [*command, "--", title, html.escape(who)], stdout=subprocess.PIPE, text=True, check=True
        )
        self._ids[pop["call"]] = done.stdout.strip()


def main() -> None:
    """Show the calls until Ctrl-C."""
    stream, desktop = Stream(sys.argv[1], os.environ["OFFHOOK_TOKEN"]), Desktop()
    while True:
        try:
            for pop in stream.pops():
                desktop.show(pop)
        except urllib.error.HTTPError as error:
            sys.exit(f"The console refuses: {error}. Is the token right, with the scope live?")
        except OSError as error:
            sys.stderr.write(f"{error}; trying again\n")
        time.sleep(3)


if __name__ == "__main__":
    main()
