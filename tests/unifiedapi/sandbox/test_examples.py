"""The example requests of the documents, sent exactly as they are written."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from tests.unifiedapi.serving import Server
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import EXAMPLE, App, Contents, Store

# VoipNow wiki, List Presence (v3). The page lacks the colon after HOST and the hyphen of
# Content-Type; its lines end with `\n`.
V3_PRESENCE = b"""\
GET /uapi/extensions/@me/0003*210/presence/ HTTP/1.1
HOST uapi.voipnow.com
Content Type: application/json
Authorization: Bearer token

"""
FIXED = (
    V3_PRESENCE.replace(b"HOST ", b"HOST: ")
    .replace(b"Content Type", b"Content-Type")
    .replace(b"\n", b"\r\n")
)

PRESENCE = {
    "extension": "0003*210",
    "status": 0,
    "registration": [
        {
            "agent": "3CXPhone 5.0.14439.0",
            "registration": "-1",
            "expire": "2011-02-10T15:10:55Z",
        }
    ],
}
# The documents' sample says 2 but shows one entry.
COLLECTION = {
    "startIndex": 0,
    "totalResults": 1,
    "itemsPerPage": 20,
    "filtered": False,
    "sorted": False,
    "entry": [PRESENCE],
}

# VoipNow wiki, Presence Service (v5): its curl line, as curl 7.88 sends it with --globoff. (Without
# it, curl takes `[0]` for a range of URLs and sends nothing.) The body makes it a POST.
V5_CURL = (
    b"POST /uapi/extensions/@me/0003*210/presence/"
    b"?filterBy=extension&filterOp=inArray&filterValue[0]=0003*210 HTTP/1.1\r\n"
    b"Host: api.hubgets.com\r\n"
    b"User-Agent: curl/7.88.1\r\n"
    b"Accept: */*\r\n"
    b"x-xsrf-token: 44HzZ6YIHDN6mbRY\r\n"
    b"content-type: application/json\r\n"
    b"cookie: dev=ffffffffffffffff2kjZMApYaH; xsrf-token=44HzZ6YIHDN6mbRY; "
    b"vn=XI%2Cm-tpsEWgqBMBCNVpeAnUEaeqCpG7f\r\n"
    b"Content-Length: 117\r\n"
    b"\r\n"
    b'{"method":"0","note":"My phone call event is awesome",'
    b'"url":"http://myevent.com/SaveMyPhoneCallDetails","status":"1"}'
)


@pytest.fixture
def store() -> Store:
    """The example PBX with the token "token"."""
    contents = msgspec.toml.decode(EXAMPLE.read_bytes(), type=Contents)
    return Store(msgspec.structs.replace(contents, tokens={"token": 3}))


def exchange(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes over a socket. Return status, headers and body of the response."""
    place = urlsplit(url)
    with (
        socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as link,
        link.makefile("rb") as stream,
    ):
        link.sendall(request)
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length")
        return status, headers, stream.read(int(length) if length else -1)


def test_v3_presence_request(sandbox: str) -> None:
    status, headers, body = exchange(sandbox, FIXED)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == COLLECTION


def test_v3_presence_request_as_printed_is_not_http(sandbox: str) -> None:
    assert exchange(sandbox, V3_PRESENCE)[0] == 400


def test_v5_presence_request_with_a_web_session(store: Store, server: Server) -> None:
    server.app = create_sandbox(store, wrapped=True)
    status, headers, body = exchange(server.url, V5_CURL)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == [COLLECTION | {"filtered": True}]
    assert store.events("0003*210") == []  # the body is ignored


XSRF = b"x-xsrf-token: 44HzZ6YIHDN6mbRY"


def test_session_needs_its_cookie_and_both_xsrf_tokens(sandbox: str) -> None:
    session = b"vn=XI%2Cm-tpsEWgqBMBCNVpeAnUEaeqCpG7f"
    for old, new in (
        (XSRF, b"x-xsrf-token: 44HzZ6YIHDN6mbRZ"),
        (XSRF, b"x-xsrf-token:"),
        (XSRF, b"x-unknown: 1"),
        (b" xsrf-token=44HzZ6YIHDN6mbRY;", b""),
        (b"vn=XI%2C", b"vn=XI,"),
        (session, b"vn="),
        (b"; " + session, b""),
        (b"Accept: */*", b"Authorization: Bearer another"),  # a token takes precedence
    ):
        assert V5_CURL.count(old) == 1
        status, _, body = exchange(sandbox, V5_CURL.replace(old, new))
        assert (status, json.loads(body)["error"]["code"]) == (401, "access_denied")


def test_session_needs_nonempty_xsrf_tokens(sandbox: str) -> None:
    bare = V5_CURL.replace(XSRF, b"x-xsrf-token:").replace(b"=44HzZ6YIHDN6mbRY", b"=")
    assert exchange(sandbox, bare)[0] == 401


def test_v5_presence_request_with_a_token(sandbox: str) -> None:
    """As a GET, and as the POST that curl sends."""
    head, _, rest = V5_CURL.partition(b"cookie:")
    signed = head + b"Authorization: Bearer token" + rest[rest.index(b"\r\n") :]
    for request in (signed, signed.replace(b"POST", b"GET", 1)):
        status, _, body = exchange(sandbox, request)
        assert (status, json.loads(body)) == (200, COLLECTION | {"filtered": True})


def test_post_is_not_accepted_for_other_lists(pbx: httpx.Client) -> None:
    for path in ("/uapi/extensions/@me/0003*400/queue/agents", "/uapi/cdr"):
        refused = pbx.post(path, json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            501,
            "request_not_implemented",
        )


@pytest.fixture
def pbx(sandbox: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer token", "Content-Type": "application/json"}
    with httpx.Client(base_url=sandbox, headers=headers) as client:
        yield client


EVENTS = "/uapi/extensions/@me/0003*210/phoneCallEvents"
NEW = {
    "type": "0",
    "method": "0",
    "note": "My phone call event is awesome",
    "url": "http://myevent.com/SaveMyPhoneCallDetails",
    "status": "1",
}


def test_event_is_created_in_the_ways_of_v3_v5_and_4psas_client(pbx: httpx.Client) -> None:
    """v3 and mcp-voipnow have the type in the body, v5 has it in the path."""
    without_type = {k: v for k, v in NEW.items() if k != "type"}
    for path, body in (
        (EVENTS, NEW),
        (f"{EVENTS}/", NEW),
        (f"{EVENTS}/0", without_type),
        (f"{EVENTS}/0/", without_type),
    ):
        made = pbx.post(path, json=body)
        assert made.status_code == 200
        event = made.json()
        own = str(pbx.base_url.join(f"{EVENTS}/0/{event['id']}"))
        assert event["links"]["self"] == own
        assert event == NEW | {k: event[k] for k in ("id", "modified", "links")}
        assert pbx.get(own).json()["entry"] == [event]
        assert pbx.get(f"{EVENTS}/0").json()["entry"] == [event]
        assert pbx.get(f"{EVENTS}/1").status_code == 204
        pbx.delete(EVENTS)


def test_event_is_updated_in_part_and_deleted(pbx: httpx.Client) -> None:
    for slash in ("", "/"):
        event = pbx.post(EVENTS, json=NEW | {"type": 4, "method": 1}).json()
        path = f"{EVENTS}/4/{event['id']}{slash}"
        changed = pbx.put(path, json={"method": "0", "note": "Another"}).json()
        expected = event | {"method": "0", "note": "Another", "modified": changed["modified"]}
        assert changed == expected
        deleted = pbx.delete(path)
        assert deleted.status_code == 200
        assert deleted.json() == [{k: event[k] for k in ("id", "type", "links")}]
        assert pbx.delete(path).json()["error"]["code"] == "pce_id_invalid"


def test_event_is_updated_and_deleted_by_its_id_alone(pbx: httpx.Client) -> None:
    """As the overview pages print it: `/phoneCallEvents/phoneCallEventId`."""
    other = pbx.post(EVENTS, json=NEW).json()
    for slash in ("", "/"):
        event = pbx.post(EVENTS, json=NEW | {"type": 4}).json()
        path = f"{EVENTS}/{event['id']}{slash}"
        changed = pbx.put(path, json={"note": "Another"}).json()
        assert changed == event | {"note": "Another", "modified": changed["modified"]}
        assert pbx.delete(path).json() == [{k: event[k] for k in ("id", "type", "links")}]
        assert pbx.delete(path).json()["error"]["code"] == "pce_id_invalid"
        assert pbx.get(EVENTS).json()["entry"] == [other]


def test_deleting_all_events_answers_204_if_there_are_none(pbx: httpx.Client) -> None:
    for type_ in (0, 0, 2):
        pbx.post(EVENTS, json=NEW | {"type": type_})
    assert [e["type"] for e in pbx.delete(f"{EVENTS}/0/").json()] == ["0", "0"]
    assert [e["type"] for e in pbx.delete(EVENTS).json()] == ["2"]
    nothing = pbx.delete(EVENTS)
    assert (nothing.status_code, nothing.content) == (204, b"")


def test_queue_agents_have_two_paths(pbx: httpx.Client) -> None:
    for name in ("queue/agents", "queueAgent"):
        agents = f"/uapi/extensions/@me/0003*400/{name}"
        changed = pbx.put(f"{agents}/0003*210", json={"status": "2"})
        assert changed.status_code == 200
        [agent] = changed.json()
        assert (agent["agentNumber"], agent["status"]) == ("0003*210", "2")
        assert agent["links"]["self"].endswith("/0003*400/queue/agents/0003*210")
        assert pbx.get(f"{agents}/0003*210/").json()["entry"] == [agent]
        assert pbx.get(agents).json()["totalResults"] == 3
        pbx.put(f"{agents}/0003*210", json={"status": "1"})


INVALID: list[tuple[str, str, Any, str]] = [
    ("GET", "/@you/0003*210/presence", None, "user_invalid"),
    ("GET", "/999/0003*210/presence", None, "user_invalid"),
    ("GET", "/40/0004*210/presence", None, "access_denied"),
    ("GET", "/@owner/0004*210/presence", None, "access_denied"),
    ("GET", "/@me/0004*210/presence", None, "extension_invalid"),
    ("GET", "/13/0003*210/presence", None, "extension_invalid"),
    ("GET", "/@owner/@self/presence", None, "extension_invalid"),
    ("GET", "/@me/0003*400/presence", None, "extension_invalid"),
    ("GET", "/@me/0003*700/phoneCallEvents", None, "extension_invalid"),
    ("GET", "/@me/@self/phoneCallEvents", None, "extension_invalid"),
    ("GET", "/@me/0003*210%0A/presence", None, "extension_invalid"),
    ("GET", "/@me/0003*210%2Fpresence", None, "request_not_implemented"),
    ("GET", "/@me/0003*210/queue/agents", None, "extension_invalid"),
    ("GET", "/@me/0003*400/queue/agents/@self", None, "qag_agent_invalid"),
    ("GET", "/@me/0003*210/phoneCallEvents/5", None, "pce_type_invalid"),
    ("GET", "/@me/0003*210/phoneCallEvents/0/none?count=0", None, "pce_id_invalid"),
    ("GET", "/@me/0003*999/phoneCallEvents/5", None, "extension_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", b"", "request_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", b"{", "request_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", b"[]", "request_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", b"\xff", "request_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", b"[" * 60_000, "request_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", b" " * 70_000, "request_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"type": None}, "pce_type_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"type": True}, "pce_type_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents/1", {"type": 0}, "pce_type_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"method": "GET"}, "pce_method_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"method": None}, "pce_method_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"url": "http://a b"}, "pce_url_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"url": "http://h\n"}, "pce_url_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"url": "//h"}, "pce_url_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"status": "2"}, "pce_status_invalid"),
    ("POST", "/@me/0003*210/phoneCallEvents", {"note": ["x"]}, "pce_note_invalid"),
    ("PUT", "/@me/0003*400/queue/agents/0003*210", b"{}", "status_invalid"),
    ("PUT", "/@me/0003*400/queue/agents/0003*299", b"{}", "qag_agent_invalid"),
    ("PUT", "/@me/0003*210/phoneCallEvents", b"{}", "request_not_implemented"),
    ("PUT", "/@me/0003*210/phoneCallEvents/0", b"{}", "pce_id_invalid"),
    ("DELETE", "/@me/0003*210/phoneCallEvents/none", None, "pce_id_invalid"),
    ("PATCH", "/@me/0003*210/presence", b"{}", "request_not_implemented"),
    ("GET", "/@me/0003*210", None, "request_not_implemented"),
    ("GET", "/@me/0003*210/phoneCallEvents/0/1/2", None, "request_not_implemented"),
]


def test_invalid_request_gets_its_code(pbx: httpx.Client) -> None:
    for method, path, body, code in INVALID:
        content = json.dumps(NEW | body).encode() if isinstance(body, dict) else body
        answer = pbx.request(method, f"/uapi/extensions{path}", content=content)
        status = {"access_denied": 401, "request_not_implemented": 501}.get(code, 400)
        found = answer.status_code, answer.json()["error"]["code"]
        assert found == (status, code), (method, path, body)
        assert answer.json()["error"]["message"]
        assert pbx.get(EVENTS).status_code == 204


def test_token_is_in_the_header_or_in_the_query(sandbox: str) -> None:
    url = f"{sandbox}/uapi/extensions/@me/0003*210/presence"
    for query in ("token", "Bearer+token", "Bearer%20token"):
        assert httpx.get(f"{url}?accessRequestToken={query}").status_code == 200
    for value in ("Bearer token", "bearer  token"):
        assert httpx.get(url, headers={"Authorization": value}).status_code == 200
    for value in ("token", "Basic token", "Bearer", "Bearer another", "Bearer token token"):
        answer = httpx.get(url, headers={"Authorization": value})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "access_denied")
    assert httpx.get(url).headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(f"{sandbox}/uapi/nothing").status_code == 401  # before all other errors


def test_paths_may_be_percent_encoded(pbx: httpx.Client) -> None:
    url = httpx.URL(pbx.base_url, raw_path=b"/uapi/extensions/%40me/0003%2A210/presence")
    assert pbx.get(url).json()["entry"] == [PRESENCE]


def test_page_has_links_to_its_neighbours(pbx: httpx.Client) -> None:
    url = "/uapi/extensions/@me/@self/presence/?count=1&sortOrder=desc&startIndex="
    assert set(pbx.get(f"{url}0").json()["paging"]) == {"next"}
    middle = pbx.get(f"{url}1").json()
    assert pbx.get(middle["paging"]["prev"]).json()["entry"][0]["extension"] == "0003*213"
    assert pbx.get(middle["paging"]["next"]).json()["entry"][0]["extension"] == "0003*211"
    assert set(pbx.get(f"{url}3").json()["paging"]) == {"prev"}
    assert pbx.get(f"{url}4").status_code == 204


TOKEN_FORM = {
    "grant_type": "client_credentials",
    "client_id": "sandbox-app",
    "client_secret": "sandbox-secret",
}


def test_token_requests_of_all_known_clients_work(sandbox: str) -> None:
    for more in (
        "",
        "&type=unifiedapi",
        "&type=unifiedapi&redirect_uri=https%3A%2F%2Fh%2Fouath%2Ftoken.php",  # sic
    ):
        # The & at the start is from uapi-example-python.
        form = "&" + "&".join(f"{k}={v}" for k, v in TOKEN_FORM.items()) + more
        answer = httpx.post(
            f"{sandbox}/oauth/token.php",
            content=form,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() | {"access_token": ""} == {
            "access_token": "",
            "expires_in": 3600,
            "token_type": "Bearer",
        }


def test_invalid_token_request_gets_oauths_error(sandbox: str) -> None:
    cases: list[tuple[dict[str, str], int, str]] = [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "unknown"}, 401, "invalid_client"),
        (
            {"client_secret": "ü\ud800".encode("utf-8", "replace").decode()},
            401,
            "invalid_client",
        ),
        ({"client_secret": ""}, 400, "invalid_request"),
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"type": "systemapi"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ]
    for form, status, error in cases:
        answer = httpx.post(f"{sandbox}/oauth/token.php", data=TOKEN_FORM | form)
        assert (answer.status_code, answer.json()["error"]) == (status, error), form
        assert answer.json()["error_description"]


def test_token_endpoint_only_accepts_a_posted_form(sandbox: str) -> None:
    assert httpx.get(f"{sandbox}/oauth/token.php").status_code == 405
    assert httpx.post(f"{sandbox}/oauth/token.php", json=TOKEN_FORM).status_code == 400


def test_refresh_token_is_valid_once_and_for_its_app(store: Store, sandbox: str) -> None:
    for name in ("one", "two"):
        store.apps[name] = App(name, "s", 3, refresh=True)
    form = {"client_secret": "s", "grant_type": "client_credentials"}
    first = httpx.post(f"{sandbox}/oauth/token.php", data=form | {"client_id": "one"}).json()
    form = {
        "client_secret": "s",
        "grant_type": "refresh_token",
        "refresh_token": first["refresh_token"],
    }
    statuses = [
        httpx.post(f"{sandbox}/oauth/token.php", data=form | {"client_id": name}).status_code
        for name in ("two", "one", "one")
    ]
    assert statuses == [400, 200, 400]


def test_other_paths_are_not_found_and_not_redirected(sandbox: str) -> None:
    for path in ("/", "/uapifoo", "/openapi.json/", "/oauth/token.php/"):
        answer = httpx.get(f"{sandbox}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
