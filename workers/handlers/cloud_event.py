"""The attributes of an event as a CloudEvent (https://github.com/cloudevents/spec, version 1.0)."""

from typing import Any
from urllib.parse import quote

from offhook import CallEvent


def attributes(event: CallEvent, content_type: str) -> dict[str, Any]:
    pbx, extension = quote(event.pbx, safe=""), quote(event.extension, safe="*")
    return {
        "id": event.id,
        "source": f"/pbx/{pbx}/extensions/{extension}",
        "type": f"offhook.call.{event.type}",
        "subject": event.call_id,
        "time": event.received,
        "datacontenttype": content_type,
    }
