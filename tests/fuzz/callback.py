"""The callback parser: parameters become an event that survives storing, or a documented refusal.

The first line of an input is the event type, the second the content type, the third the query; the
rest is the body.
"""

from urllib.parse import parse_qsl

from offhook.calls import Closing, fold, from_state, tell, to_state
from offhook.calls.closing import over
from offhook.errors import RefusedCallback
from offhook.event import CallEvent, from_stored, to_stored
from offhook.settings import Settings
from receiver.callback import CallbackRequest, _urlencoded, accept, fingerprint, quarantined
from tests.fuzz.receive import CODES, STATUSES

_SETTINGS = Settings(
    secret="a secret for fuzzing, forty characters",  # type: ignore[arg-type]
    max_body=4096,
    max_parameters=20,
    max_parameter_length=300,
)
_CLOSINGS: tuple[Closing | None, ...] = (None, "silence", "hangup", "records")
WORDS = (
    *(b"dial-in\n", b"dial-out\n", b"hangup\n", b"answer-in\n", b"answer-out\n", b"telphin\n"),
    *(b"application/x-www-form-urlencoded\n", b"multipart/form-data; boundary=b\n", b"\n"),
    *(b"CallID=", b"CallerIDNum=", b"CallerIDName=", b"CalledDID=", b"CalledExtension="),
    *(b"CallStatus=", b"CallFlow=in", b"CallerExtension=", b"CalledNumber=", b"EventType=answer"),
    *(b"SubCallID=", b"EventTime=253402300799999999", b"RecID=", b"Bridged=yes", b"RemoteNumber="),
    *(b"ANSWER", b"%E2%82%AC", b"%00", b"%ED%A0%80", b"\xff", b"&", b"+", b"--b\r\n", b"--b--\r\n"),
    *(b'Content-Disposition: form-data; name="CallID"\r\n\r\n', b'; filename="x"', b"\r\n"),
    *(b"Content-Transfer-Encoding: base64\r\n", b"quoted-printable", b"0003*210"),
)


def callback(data: bytes) -> None:
    """Parse the input as a callback, and check the event or the refusal."""
    kind, _, rest = data.partition(b"\n")
    content_type, _, rest = rest.partition(b"\n")
    query, _, body = rest.partition(b"\n")
    request = CallbackRequest(
        pbx="main",
        extension="0003*210",
        event_type=kind.decode("latin-1"),
        method="POST",
        content_type=content_type.decode("latin-1"),
        query=query,
        body=body,
    )
    _check_decoding(query)
    try:
        event = accept(request, _SETTINGS)
    except RefusedCallback as refusal:
        _check_refusal(request, refusal)
        return
    assert len(event.parameters) <= _SETTINGS.max_parameters
    longest = max(map(len, [*event.parameters, *event.parameters.values()]))
    assert longest <= _SETTINGS.max_parameter_length
    stored = to_stored(event)
    assert from_stored(stored) == event
    assert CallEvent.from_dict(event.as_dict()) == event
    assert len(stored) < 12 * (len(query) + len(body)) + 1000
    again = accept(request, _SETTINGS)
    assert fingerprint(again) == fingerprint(event)
    _check_call(event)


def _check_refusal(request: CallbackRequest, refusal: RefusedCallback) -> None:
    assert refusal.code in CODES
    assert refusal.status in STATUSES
    quarantined(request, refusal, _SETTINGS.max_body)


def _check_decoding(query: bytes) -> None:
    """Our decoding of a query is that of the standard library."""
    try:
        decoded = _urlencoded(query, 1000)
    except RefusedCallback:
        return
    text = query.decode("utf-8", "replace")
    assert decoded == parse_qsl(text, keep_blank_values=True, max_num_fields=2000), query


def _check_call(event: CallEvent) -> None:
    """The event's call can be folded, told and stored."""
    state = fold(None, event)
    assert fold(state, event) == state
    over(state)
    for closing in _CLOSINGS:
        state, told = tell(state, "GB", event.received, closing)
        assert from_state(to_state(state)) == state
        for each in told:
            assert from_stored(to_stored(each)) == each
            assert CallEvent.from_dict(each.as_dict()) == each
