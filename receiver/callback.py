"""`accept()`: from the bytes of a callback to a call event.

VoipNow → **receive** (verify, parse, drop repeats, append, answer) → inbox
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

import msgspec
from msgspec.structs import replace
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header

from offhook.callback_url import is_valid
from offhook.dialects import dialect
from offhook.dialects.encoding import decode
from offhook.errors import RefusedCallback
from offhook.event import CallEvent
from offhook.settings import Settings

_CACHED_LENGTH = 100  # characters; longer values are decoded without the cache
_KEPT_OF_HEADER = 256  # characters
_REPLACEMENT = "\ufffd"  # for what is not UTF-8
_MULTIPART = "multipart/form-data"
_FORMS = ("application/x-www-form-urlencoded", "", "text/plain")
# PBXs were seen to send forms as application/json, text/html and */*. JSON, HTML and XML begin with
# other characters.
_BEGINS_LIKE_A_FORM = re.compile(rb"&*[\w.%+-]+=")
_sorting = msgspec.json.Encoder(order="deterministic")


class CallbackRequest(msgspec.Struct, frozen=True, gc=False):
    """A callback as it arrived, without its token."""

    pbx: str
    extension: str
    event_type: str
    method: str
    content_type: str
    query: bytes
    body: bytes


class NoSuchCallback(Exception):
    """Not one of our URLs. The client does not learn why."""


def verified(path: str, settings: Settings) -> tuple[str, str, str]:
    """Return the PBX, extension and event type of a callback URL.

    Args:
        path: decoded, from `PREFIX` on.

    Raises:
        NoSuchCallback: the token matches neither our secret nor the previous one.
    """
    names = path.split("/")
    if len(names) != 6:
        raise NoSuchCallback
    _, _, pbx, extension, event_type, token = names
    secrets = [settings.secret.get_secret_value()]
    if settings.previous_secret is not None:
        secrets.append(settings.previous_secret.get_secret_value())
    if not is_valid(secrets, token, pbx, extension, event_type):
        raise NoSuchCallback
    if settings.tenants and ":" in pbx:  # which ends the tenant in the name of a call
        raise NoSuchCallback
    return pbx, extension, event_type


def accept(
    request: CallbackRequest, settings: Settings, received: datetime | None = None
) -> CallEvent:
    """Return the call event of a callback whose URL is verified.

    Args:
        received: now if not given.

    Raises:
        RefusedCallback: it is not a call event, or exceeds a limit.
    """
    if request.method not in ("GET", "POST"):
        raise RefusedCallback(405, "method_not_allowed", "A callback is a GET or a POST.")
    read_event = dialect(request.event_type)
    parameters, undecoded = _parameters(request, settings), None
    if _REPLACEMENT in "".join(parameters.values()):
        parameters, undecoded = _decoded(request, settings)
    event = read_event(
        pbx=request.pbx,
        extension=request.extension,
        type=request.event_type,
        parameters=parameters,
        received=received,
    )
    if undecoded:
        event = replace(event, undecoded=undecoded)
    tenant = settings.tenant_of(request.pbx, request.extension)
    return replace(event, tenant=tenant) if tenant else event


def fingerprint(event: CallEvent) -> str:
    """Return a digest that is equal for callbacks with equal parameters, in any order."""
    said = (event.pbx, event.extension, event.type, event.parameters, event.undecoded)
    return hashlib.blake2b(_sorting.encode(said), digest_size=12).hexdigest()


def _parameters(request: CallbackRequest, settings: Settings) -> dict[str, str]:
    """Merge query and body. The last value of a name wins, as in the PBX's PHP."""
    if len(request.query) > settings.max_body or len(request.body) > settings.max_body:
        raise RefusedCallback(
            413, "too_large", f"Query and body may have {settings.max_body} bytes each."
        )
    pairs = _urlencoded(request.query, settings.max_parameters) if request.query else []
    if request.method == "POST" and request.body:
        kind = _kind(request)
        if kind == _MULTIPART:
            parts = _multipart(request.content_type, request.body)
            pairs += [(decode(name, None), decode(value, None)) for name, value in parts]
        elif kind in _FORMS or _BEGINS_LIKE_A_FORM.match(request.body):
            pairs += _urlencoded(request.body, settings.max_parameters)
        else:
            raise RefusedCallback(415, "unsupported_media_type", "The body is not a form.")
    _check_limits(pairs, len(request.query) + len(request.body), settings)
    return dict(pairs)


def _kind(request: CallbackRequest) -> str:
    return request.content_type.partition(";")[0].strip().lower()


def _decoded(request: CallbackRequest, settings: Settings) -> tuple[dict[str, str], dict[str, str]]:
    """Decode a request that is not UTF-8: return its parameters, and those to decode, as sent.

    Slower than `_parameters`, which has checked the request.
    """
    pbx = settings.pbx.get(request.pbx)
    encoding = pbx.encoding if pbx is not None else None
    sent = {decode(name, encoding): value for name, value in _sent(request)}
    parameters = {name: decode(value, encoding) for name, value in sent.items()}
    _check_limits(list(parameters.items()), len(request.query) + len(request.body), settings)
    undecoded = {
        name: quote_from_bytes(value) for name, value in sent.items() if not _is_utf_8(value)
    }
    return parameters, undecoded


def _sent(request: CallbackRequest) -> Iterator[tuple[bytes, bytes]]:
    """Yield the parameters as bytes, in order."""
    forms = [request.query]
    if request.method == "POST" and _kind(request) != _MULTIPART:
        forms.append(request.body)
    for form in forms:
        for pair in form.replace(b"+", b" ").split(b"&"):
            if pair:
                name, _, value = pair.partition(b"=")
                yield unquote_to_bytes(name), unquote_to_bytes(value)
    if request.method == "POST" and _kind(request) == _MULTIPART:
        yield from _multipart(request.content_type, request.body)


def _is_utf_8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_limits(pairs: list[tuple[str, str]], size: int, settings: Settings) -> None:
    if len(pairs) > settings.max_parameters:
        raise _too_many(settings.max_parameters)
    longest = settings.max_parameter_length
    if size <= longest:  # so every parameter is short enough
        return
    for name, value in pairs:
        if len(name) > longest or len(value) > longest:
            raise RefusedCallback(
                400, "parameter_too_long", f"A parameter may have {longest} characters."
            )


def _too_many(most: int) -> RefusedCallback:
    return RefusedCallback(400, "too_many_parameters", f"A callback may have {most} parameters.")


def _urlencoded(data: bytes, most: int) -> list[tuple[str, str]]:
    """Decode leniently: replace bad UTF-8 and skip empty pairs.

    VoipNow documents no charset, and a wrong one must not cost an event. Takes a quarter of the
    time of `parse_qsl`, because most names and values have nothing to decode.
    """
    if data.count(b"&") >= most:
        raise _too_many(most)
    pairs = []
    for pair in data.decode("utf-8", "replace").replace("+", " ").split("&"):
        if pair:
            name, _, value = pair.partition("=")
            pairs.append((_unquoted(name), _unquoted(value)) if "%" in pair else (name, value))
    return pairs


def _unquoted(text: str) -> str:
    if "%" not in text:
        return text
    return _cached_unquote(text) if len(text) < _CACHED_LENGTH else unquote(text)


# Encoded values repeat: extensions, parameter names, people's names.
_cached_unquote = lru_cache(4096)(unquote)


def _multipart(content_type: str, body: bytes) -> list[tuple[bytes, bytes]]:
    pairs: list[tuple[bytes, bytes]] = []
    complete = False

    def on_field(field: Field) -> None:
        pairs.append((field.field_name or b"", field.value or b""))

    def on_file(file: File) -> None:
        raise RefusedCallback(400, "malformed_body", "A callback carries no files.")

    def on_end() -> None:
        nonlocal complete
        complete = True

    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    try:
        parser = FormParser(
            kind.decode("latin-1"), on_field, on_file, on_end, boundary=options.get(b"boundary")
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RefusedCallback(400, "malformed_body", "The multipart body is malformed.") from error
    if not complete:  # the parser accepts a truncated last part
        raise RefusedCallback(400, "malformed_body", "The multipart body ends too early.")
    return pairs


def quarantined(
    request: CallbackRequest, refusal: RefusedCallback, most: int
) -> dict[str, str | bytes]:
    """Return the quarantine entry of a refused callback: everything but the token.

    Args:
        most: maximum bytes of the query, and of the body; the rest is cut off.
    """
    kept: dict[str, str | bytes] = {
        "code": refusal.code,
        "message": refusal.message,
        "pbx": _storable(request.pbx),
        "extension": _storable(request.extension),
        "event_type": _storable(request.event_type),
        "method": request.method,
        "content_type": _storable(request.content_type[:_KEPT_OF_HEADER]),
        "query": request.query[:most],
        "body": request.body[:most],
    }
    if len(request.query) > most or len(request.body) > most:
        kept["cut"] = "yes"
    return kept


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Return the value of a header in an ASGI scope, or an empty string."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return ""
