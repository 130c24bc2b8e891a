"""`accept()`: from the bytes of a request to a call event, without a server."""

import json
from urllib.parse import parse_qsl, quote_from_bytes, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from offhook.callback_url import callback_url
from offhook.dialects.voipnow import read_event
from offhook.errors import RefusedCallback
from offhook.event import CallEvent, EventType, from_stored, to_stored
from offhook.settings import PbxSettings, Settings
from receiver.callback import (
    CallbackRequest,
    NoSuchCallback,
    _urlencoded,
    accept,
    fingerprint,
    quarantined,
    verified,
)
from tests.callbacks import load, names
from tests.conftest import SECRET

FORM = "application/x-www-form-urlencoded"
OTHER = "another secret, longer than it needs to be"
SETTINGS = Settings(secret=SecretStr(SECRET), max_body=1024, max_parameters=10)
CYRILLIC = SETTINGS.model_copy(update={"pbx": {"main": PbxSettings(encoding="cp1251")}})
TEXTS = st.dictionaries(st.text(), st.text(), max_size=6)


def callback(
    query: bytes = b"", body: bytes = b"", content_type: str = FORM, method: str = "POST"
) -> CallbackRequest:
    return CallbackRequest(
        pbx="main",
        extension="0003*210",
        event_type="hangup",
        method=method,
        content_type=content_type,
        query=query,
        body=body,
    )


def multipart(parts: dict[str, str], boundary: str = "b0und") -> bytes:
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts.items()
    ]
    return "".join([*lines, f"--{boundary}--\r\n"]).encode()


def refusal(request: CallbackRequest) -> RefusedCallback:
    with pytest.raises(RefusedCallback) as refused:
        accept(request, SETTINGS)
    return refused.value


def with_parameters(parameters: dict[str, str], **other: str) -> CallEvent:
    return read_event(
        pbx=other.get("pbx", "main"),
        extension=other.get("extension", "0003*210"),
        type=EventType.HANGUP,
        parameters={"CallID": "1"} | parameters,
    )


@given(TEXTS)
def test_parameters_arrive_unchanged(parameters: dict[str, str]) -> None:
    sent = {name: value for name, value in parameters.items() if name.lower() != "callid"}
    sent["CallID"] = "1"
    encoded = urlencode(sent).encode()
    settings = Settings(secret=SecretStr(SECRET))
    for request in (callback(query=encoded, method="GET"), callback(body=encoded)):
        assert accept(request, settings).parameters == sent


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs")), max_size=40))
def test_multipart_body_is_read_like_any_other(name: str) -> None:
    body = multipart({"CallID": "1", "CallerIDName": name})
    event = accept(
        callback(body=body, content_type="multipart/form-data; boundary=b0und"), SETTINGS
    )
    assert event.parameters == {"CallID": "1", "CallerIDName": name}


@given(
    st.lists(st.sampled_from([b"a", b"=", b"&", b"%", b"+", b"%41", b"%FF", b"\xc3", b";"])).map(
        b"".join
    )
    | st.binary()
)
def test_form_parser_agrees_with_the_standard_library(data: bytes) -> None:
    expected = parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")
    assert _urlencoded(data, 10_000) == expected


KINDS = st.sampled_from(
    ["", FORM, "multipart/form-data; boundary=0", "multipart/form-data", "text/plain", "a/b"]
)
PIECES = st.lists(
    st.sampled_from(
        [
            b"--0",
            b"\xff",
            b"CallID=1&",
            b"--",
            b"\r\n",
            b"Content-Disposition: form-data",
            b'; name="CallID"',
            b'; filename="f"',
            b"Content-Transfer-Encoding: base64",
            b"quoted-printable",
            b": ",
            b"1",
            b"\x00",
        ]
    )
).map(b"".join)


@given(
    st.binary() | PIECES,
    st.binary() | PIECES,
    KINDS | st.text(),
    st.sampled_from("PG"),
    st.sampled_from([SETTINGS, CYRILLIC]),
)
def test_any_bytes_are_an_event_or_a_refusal(
    query: bytes, body: bytes, content_type: str, method: str, settings: Settings
) -> None:
    request = callback(query, body, content_type, {"P": "POST", "G": "GET"}[method])
    try:
        event = accept(request, settings)
    except RefusedCallback as error:
        refused = error
    else:
        assert from_stored(to_stored(event)) == event
        assert fingerprint(event)
        return
    assert 400 <= refused.status < 500
    assert quarantined(request, refused, 1024)["code"] == refused.code


@pytest.mark.parametrize("content_type", ["", FORM, FORM.upper(), f"{FORM}; charset=utf-8"])
def test_form_content_type_may_be_written_in_any_way(content_type: str) -> None:
    assert accept(callback(body=b"CallID=1", content_type=content_type), SETTINGS).call_id == "1"


def test_name_that_is_not_utf_8_is_decoded_as_the_setting_says() -> None:
    def read(request: CallbackRequest, encoding: str | None) -> CallEvent:
        pbx = {} if encoding is None else {"main": PbxSettings(encoding=encoding)}
        return accept(request, Settings(secret=SecretStr(SECRET), pbx=pbx))

    name = "Лёша"
    for encoding, said in (("cp1251", name), ("latin-1", "Ë¸øà"), (None, "\ufffd\u02f8\ufffd")):
        raw = name.encode("cp1251")
        form = b"CallID=1&CallerIDName=%s"
        for request in (
            callback(query=form % raw, method="GET"),
            callback(query=form % quote_from_bytes(raw).encode(), method="GET"),
            callback(body=form % raw),
            callback(query=b"CallerIDName=old", body=form % quote_from_bytes(raw).encode()),
            callback(
                body=multipart({"CallID": "1", "CallerIDName": "*"}).replace(b"*", raw),
                content_type="multipart/form-data; boundary=b0und",
            ),
        ):
            event = read(request, encoding)
            if encoding is not None:
                assert event.caller.name == event.parameters["CallerIDName"] == said
            assert "\ufffd" in str(event.caller.name) or encoding is not None
            assert event.undecoded == {"CallerIDName": "%CB%B8%F8%E0"}
            assert from_stored(to_stored(event)) == event


def test_utf_8_is_read_as_such_whatever_the_setting() -> None:
    said = b"CallID=1&CallerIDName=%D0%AF&Note=\xff"
    event = accept(callback(query=said), CYRILLIC)
    assert (event.caller.name, event.parameters["Note"]) == ("Я", "я")
    assert event.undecoded == {"Note": "%FF"}
    assert accept(callback(query=b"CallID=1&CallerIDName=%D0%AF"), CYRILLIC).undecoded is None
    genuine = accept(callback(query="CallID=1&Note=\ufffd".encode()), CYRILLIC)
    assert (genuine.parameters["Note"], genuine.undecoded) == ("\ufffd", None)


def test_different_bytes_that_cannot_be_read_are_no_repeat() -> None:
    one, other = (
        accept(callback(query=b"CallID=1&CallerIDName=M%s" % byte), SETTINGS)
        for byte in (b"\xe4", b"\xfc")
    )
    assert one.parameters == other.parameters
    assert fingerprint(one) != fingerprint(other)


# Number and name of the caller, status and direction, where they are not the usual ones.
USUAL = ("441614960123", "Ada Byron", "CALLING", "in")
UNUSUAL = {
    "bare-utf-8-name": ("441614960123", "Müller", "CALLING", "in"),
    "empty-values": ("441614960123", None, "CALLING", "in"),
    "latin-1-name-get": ("441614960123", "M\ufffdller", "CALLING", "in"),
    "latin-1-name-post": ("441614960123", "M\ufffdller", "CALLING", "in"),
    "name-twice": ("441614960123", "Grace Hopper", "CALLING", "in"),
    "only-call-id": (None, None, None, "in"),
    "recorded-dial-in": ("+447700900953", "447700900953", "CALLING", "in"),
    "recorded-dial-out": ("11234*104", "104", "CALLING", "out"),
    "telphin-dialect": ("74950000123", "74950000123", "CALLING", "in"),
    "unknown-status": ("441614960123", "Ada Byron", "UNKNOWN", "in"),
    "withheld-number-absent": (None, None, "CALLING", "in"),
    "withheld-number-anonymous": ("anonymous", None, "CALLING", "in"),
}


def of_payload(name: str) -> CallbackRequest:
    payload = load(name)
    kind = payload.headers.get("content-type", "")
    return CallbackRequest(*payload.names, payload.method, kind, payload.query, payload.body)


@pytest.mark.parametrize("name", [name for name in names("odd") if name != "odd/no-call-id"])
def test_odd_callback_is_an_event(name: str) -> None:
    event = accept(of_payload(name), Settings(secret=SecretStr(SECRET)))
    assert (event.caller.number, event.caller.name, event.status, event.direction) == UNUSUAL.get(
        name.removeprefix("odd/"), USUAL
    )


def test_recorded_callbacks_of_2015_are_events() -> None:
    settings = Settings(secret=SecretStr(SECRET))
    dial_in, dial_out = (
        accept(of_payload(f"odd/recorded-{name}"), settings) for name in ("dial-in", "dial-out")
    )
    assert (dial_in.type, dial_in.call_id) == (EventType.DIAL_IN, "1429413884.1298580")
    assert dial_in.caller.extension is None  # sent, but empty
    called = dial_in.called
    assert (called.number, called.extension, called.did) == (None, "11234*104", "00046010")
    assert (dial_out.type, dial_out.call_id) == (EventType.DIAL_OUT, "1429368433.1280855")
    assert dial_out.caller.extension == "11234*104"
    called = dial_out.called
    assert (called.number, called.extension, called.did) == ("000460109", None, None)


@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8", "*/*", "a"])
def test_form_with_another_content_type_is_read(kind: str) -> None:
    for body in (b"CallID=1", b"&CallID=1", b"Caller%49D+Num=1&CallID=1"):
        assert accept(callback(body=body, content_type=kind), SETTINGS).call_id == "1"


@pytest.mark.parametrize(
    "body",
    [
        b'{"CallID": "1"}',
        b'[{"url": "http://h/?a=1&CallID=1"}]',
        b"<a href='/?a=1&CallID=1'>",
        b'"a=1&CallID=1"',
        b"\xff\xfe=1&CallID=1",
        b" CallID=1",
        b"CallID",
        b"--x\r\nContent-Disposition: form-data; name=CallID",
        b"\x00",
    ],
)
def test_other_body_with_another_content_type_is_refused(body: bytes) -> None:
    for kind in ("application/json", "text/html", "*/*"):
        assert refusal(callback(body=body, content_type=kind)).code == "unsupported_media_type"


def test_last_value_of_a_repeated_name_wins() -> None:
    event = accept(callback(query=b"CallID=1&a=1&a=2", body=b"CallID=2"), SETTINGS)
    assert event.parameters == {"CallID": "2", "a": "2"}


def test_body_of_a_get_is_ignored() -> None:
    event = accept(callback(query=b"CallID=1", body=b"CallID=2", method="GET"), SETTINGS)
    assert event.call_id == "1"


@pytest.mark.parametrize(
    "body",
    [
        multipart({"CallID": "1", "CallerIDName": "Jo"})[:-6],  # the end is cut off
        multipart({"CallID": "1", "CallerIDName": "Jo"})[:-20],
        b"nothing of the kind",
        b'--b0und\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n\r\nx\r\n--b0und--',
        b"--b0und\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b0und--\r\n",
    ],
)
def test_incomplete_multipart_body_is_refused(body: bytes) -> None:
    request = callback(body=body, content_type="multipart/form-data; boundary=b0und")
    assert refusal(request).code == "malformed_body"


def test_parameter_limit_covers_query_and_body() -> None:
    many = b"&".join(b"a%d=1" % n for n in range(6))
    assert accept(callback(query=b"CallID=1", body=many), SETTINGS).call_id == "1"
    assert refusal(callback(query=many + b"&CallID=1", body=many)).code == "too_many_parameters"


def test_quarantine_entry_is_truncated() -> None:
    request = callback(query=b"q" * 5000, body=b"b" * 5000, content_type="t" * 5000)
    kept = quarantined(request, refusal(request), 1024)
    assert (len(kept["query"]), len(kept["body"]), kept["cut"]) == (1024, 1024, "yes")
    assert len(kept["content_type"]) < 1000
    whole = callback(query=b"q" * 1024, body=b"b" * 1024)
    assert "cut" not in quarantined(whole, refusal(request), 1024)


def test_only_the_current_and_previous_secret_are_valid() -> None:
    settings = Settings(secret=SecretStr(OTHER), previous_secret=SecretStr(SECRET))
    path = callback_url("", SECRET, "main", "0003*210", "hangup")
    names = ("main", "0003*210", "hangup")
    assert verified(path, SETTINGS) == verified(path, settings) == names
    with pytest.raises(NoSuchCallback):
        verified(path, Settings(secret=SecretStr(OTHER)))


@given(TEXTS, TEXTS)
def test_fingerprints_are_equal_only_for_equal_parameters(
    one: dict[str, str], other: dict[str, str]
) -> None:
    first, second = with_parameters(one), with_parameters(other)
    same = first.parameters == second.parameters
    assert (fingerprint(first) == fingerprint(second)) is same
    turned = with_parameters(dict(reversed(list(one.items()))))
    assert fingerprint(first) == fingerprint(turned)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (with_parameters({"a": "b\0c\0d"}), with_parameters({"a": "b", "c": "d"})),
        (with_parameters({}, pbx="x"), with_parameters({}, pbx="y")),
        (with_parameters({}, extension="x"), with_parameters({}, extension="y")),
        (with_parameters({"a": ""}), with_parameters({})),
    ],
)
def test_fingerprints_cannot_be_made_to_collide(one: CallEvent, other: CallEvent) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_refusal_is_json_serializable() -> None:
    refused = refusal(callback())
    assert json.dumps({"code": refused.code, "message": refused.message})
    assert (refused.status, refused.code) == (400, "missing_call_id")
