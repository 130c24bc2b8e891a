"""Parameters that are not UTF-8.

No document says in which encoding a PBX sends names, and PBXs were seen to use latin-1 and cp1251.
So an event keeps the bytes as sent (`CallEvent.undecoded`), and the setting `encoding` of its PBX
says how to read them, also later.
"""

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from offhook.event import CallEvent
from offhook.settings import PbxSettings
from unifiedapi.callback import known_parameters


def decode(sent: bytes, encoding: str | None) -> str:
    """Decode UTF-8, and everything else with the encoding. What fits neither becomes U+FFFD."""
    try:
        return sent.decode()
    except UnicodeDecodeError:
        return sent.decode(encoding or "utf-8", "replace")


def corrected(event: CallEvent, pbxs: Mapping[str, PbxSettings]) -> CallEvent:
    """Decode an event again as today's settings say. Only its parameters and the name change."""
    encoding = pbxs[event.pbx].encoding if event.undecoded and event.pbx in pbxs else None
    if encoding is None:
        return event
    again = {
        name: decode(unquote_to_bytes(sent), encoding)
        for name, sent in (event.undecoded or {}).items()
    }
    parameters = event.parameters | again
    name = known_parameters(parameters).get("CallerIDName")
    return replace(event, parameters=parameters, caller=replace(event.caller, name=name))
