"""`offhook sandbox`: run a simulated PBX and place calls on it."""

import signal
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from offhook_cli.options import Host, Json, Port, group
from offhook_cli.screen import fail, note, print_json
from offhook_cli.startup import bound
from unifiedapi.sandbox.pbx import Drop
from unifiedapi.sandbox.scenarios import Scenario

sandbox = group("Run a simulated PBX: UnifiedAPI, and calls placed on it.")

Url = Annotated[
    str, typer.Option(help="URL of the sandbox PBX.", metavar="URL", envvar="OFFHOOK_SANDBOX")
]
Phones = Annotated[
    str | None,
    typer.Option(
        help="Extensions of the phones, separated by commas.", show_default="all", metavar="LIST"
    ),
]
Speed = Annotated[
    float,
    typer.Option(
        min=0.001, metavar="FACTOR", help="Time lapse: with 20, two minutes take six seconds."
    ),
]
Lost = Annotated[
    Drop,
    typer.Option(
        help="Callbacks to drop: none, hangup or all. The PBX still records the call.",
        metavar="WHICH",
    ),
]
_HERE = "http://127.0.0.1:8089"


@sandbox.command("start")
def start(
    host: Host = "127.0.0.1",
    port: Port = 8089,
    file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="A TOML file with users, extensions and apps.",
            show_default="a small organization",
        ),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS, with a certificate made for this run.")
    ] = False,
    numbers: Annotated[
        bool, typer.Option("--numbers", help="Send JSON numbers instead of strings.")
    ] = False,
    wrapped: Annotated[
        bool, typer.Option("--wrapped", help="Wrap responses in an array, as the v5 samples do.")
    ] = False,
) -> None:
    """Run the sandbox PBX until Ctrl-C.

    It implements UnifiedAPI (phone call events, presence, queue agents, call
    records, OAuth) as documented, and sends real callbacks for the calls
    placed on it. /openapi.json describes it. It keeps nothing when it stops.

    \b
    Examples:
      offhook sandbox start
      offhook sandbox start --file pbx.toml --tls
    """
    import uvicorn

    from offhook.http.callbacks import callbacks
    from unifiedapi.sandbox.control import create_exchange
    from unifiedapi.sandbox.store import Store
    from unifiedapi.sandbox.tls import make_certificate

    try:
        store = Store.load(file) if file else Store.example()
    except (OSError, ValueError) as error:
        fail(f"{file}: {error}", code=2)
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        ca_file: Path | None = None
        if tls:
            folder = stack.enter_context(TemporaryDirectory(prefix="offhook-sandbox-"))
            try:
                made = make_certificate(folder, "localhost", host)
            except RuntimeError as error:
                fail(str(error))
            ca_file = made.ca_file
            options = {"ssl_certfile": made.certificate_file, "ssl_keyfile": made.key_file}
        base = f"{'https' if tls else 'http'}://{host}:{port}"
        app = create_exchange(store, callbacks, numbers=numbers, wrapped=wrapped)
        config = uvicorn.Config(app, log_level="warning", access_log=False, **options)
        listening = bound(host, port)
        note(_welcome(store, base, ca_file))
        # Otherwise uvicorn exits on SIGTERM and leaves the certificate's key behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            uvicorn.Server(config).run([listening])
        except KeyboardInterrupt:
            note("The sandbox PBX has stopped.")


@sandbox.command("call")
def call(
    scenario: Annotated[
        Scenario, typer.Argument(help="Kind of call.", metavar="SCENARIO")
    ] = Scenario.ANSWERED,
    url: Url = _HERE,
    phones: Phones = None,
    speed: Speed = 1.0,
    drop: Lost = Drop.NONE,
    as_json: Json = False,
) -> None:
    """Place a call on a running sandbox PBX.

    \b
    Examples:
      offhook sandbox call ring-group --speed 20
      offhook sandbox call missed --phones '0003*210'
      offhook sandbox call answered --speed 20 --drop hangup
    """
    order = {"scenario": scenario, **_placing(phones, speed, drop)}
    answer = _control(url, "POST", "calls", order)
    if as_json:
        print_json(answer)
    else:
        note(f"Placed call {answer['id']}")


@sandbox.command("load")
def load(
    calls: Annotated[int, typer.Argument(min=1, metavar="N", help="Number of calls.")],
    rate: Annotated[
        float, typer.Option(min=0.001, metavar="N", help="Calls started per second.")
    ] = 10.0,
    url: Url = _HERE,
    phones: Phones = None,
    speed: Speed = 1.0,
    drop: Lost = Drop.NONE,
) -> None:
    """Place many calls on a running sandbox PBX.

    \b
    Examples:
      offhook sandbox load 1000 --rate 50 --speed 20
    """
    _control(url, "POST", "load", {"calls": calls, "rate": rate, **_placing(phones, speed, drop)})
    note(f"Placing {calls} calls; `offhook sandbox tally` counts the responses.")


@sandbox.command("tally")
def tally(url: Url = _HERE, as_json: Json = False) -> None:
    """Count the callbacks of a running sandbox PBX by result."""
    answer = _control(url, "GET", "tally")
    if as_json:
        print_json(answer)
        return
    refused = ", ".join(f"{count} by {status}" for status, count in answer["refused"].items())
    failed = ", ".join(f"{count} {reason}" for reason, count in answer["failed"].items())
    typer.echo(
        f"{answer['calls']} calls finished; {answer['sent']} callbacks: "
        f"{answer['accepted']} accepted, refused: {refused or 'none'}, failed: {failed or 'none'}."
    )


def _placing(phones: str | None, speed: float, drop: Drop) -> dict[str, Any]:
    listed = [phone.strip() for phone in (phones or "").split(",") if phone.strip()]
    return {"phones": listed or None, "speed": speed, "drop": drop}


def _control(url: str, method: str, what: str, order: dict[str, Any] | None = None) -> Any:
    import httpx

    try:
        # Only a sandbox has this endpoint, and its certificate is made for one run.
        answer = httpx.request(
            method,
            f"{url.rstrip('/')}/sandbox/{what}",
            json=order,
            verify=False,  # noqa: S501
        )
    except httpx.TransportError as error:
        fail(f"no sandbox PBX answers at {url} ({error}): start one with `offhook sandbox start`")
    if answer.status_code == 400:
        fail(answer.json()["error"]["message"])
    if not answer.is_success:
        fail(f"{url} is not a sandbox PBX: it answered {answer.status_code}")
    return answer.json()


def _welcome(store: Any, base: str, ca_file: Path | None) -> str:
    lines = [f"The sandbox PBX listens on {base}. For offhook.toml:", "", "[pbx.sandbox]"]
    lines.append(f'host = "{base}"')
    for app in list(store.apps.values())[:1]:
        lines += [f'client_id = "{app.id}"', f'client_secret = "{app.secret}"']
    lines.append(f'ca_file = "{ca_file}"' if ca_file else "insecure = true    # plain http")
    numbers = ", ".join(store.extensions)
    where = "" if base == _HERE else f" --url {base}"
    lines += [
        "",
        f"Extensions: {numbers}.",
        f"Place a call: offhook sandbox call ring-group{where}",
    ]
    return "\n".join(lines)
