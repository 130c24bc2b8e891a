"""Names that are not UTF-8, decoded again after the setting was corrected."""

from msgspec.structs import replace

from offhook.call import Party
from offhook.dialects.encoding import corrected, decode
from offhook.dialects.voipnow import read_event
from offhook.event import CallEvent
from offhook.settings import PbxSettings


def event(name: str, undecoded: dict[str, str] | None) -> CallEvent:
    parameters = {"CallID": "1", "CallerIDNum": "210", "CallerIDName": name}
    read = read_event(pbx="main", extension="0003*210", type="hangup", parameters=parameters)
    return replace(read, undecoded=undecoded)


def pbx(encoding: str | None) -> dict[str, PbxSettings]:
    return {"main": PbxSettings(host="https://h", token="t", encoding=encoding)}  # type: ignore[arg-type]


def test_event_is_decoded_again_as_todays_setting_says() -> None:
    wrong = event("Ë¸øà", {"CallerIDName": "%CB%B8%F8%E0"})
    right = corrected(wrong, pbx("cp1251"))
    assert right.caller == Party(number="210", name="Лёша")
    assert right.parameters == wrong.parameters | {"CallerIDName": "Лёша"}
    assert replace(right, caller=wrong.caller, parameters=wrong.parameters) == wrong


def test_event_is_unchanged_if_nothing_says_how_to_decode_it() -> None:
    wrong = event("\ufffd", {"CallerIDName": "%FF"})
    assert corrected(wrong, pbx(None)) is wrong
    assert corrected(wrong, {}) is wrong
    plain = event("Jo", None)
    assert corrected(plain, pbx("cp1251")) is plain


def test_bytes_that_the_encoding_does_not_have_are_replaced() -> None:
    assert decode(b"a\x98", "cp1251") == "a\ufffd"
    assert decode(b"a\x98", None) == "a\ufffd"
