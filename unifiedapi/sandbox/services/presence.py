"""Presence: the state of phone terminals and of their phones."""

from unifiedapi.sandbox.collection import PRESENCE, Entry
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.services.api_request import (
    ApiRequest,
    acting_user,
    extension_of,
    manages,
    timestamp,
)
from unifiedapi.sandbox.store import Extension, ExtensionKind, Store


def list_(store: Store, request: ApiRequest, user: str, number: str) -> Entry | None:
    if number == "@self":
        extensions = _all(store, request, user)
    else:
        extensions = [extension_of(store, request, user, number, ExtensionKind.PHONE)]
    return request.page([_entry(request, extension) for extension in extensions], PRESENCE)


def _all(store: Store, request: ApiRequest, user: str) -> list[Extension]:
    acting = acting_user(store, request, user)
    if acting is None:  # @self of @owner is ambiguous without an extension
        raise Refused("extension_invalid")
    phones = [store.extensions[number] for number in store.numbers(ExtensionKind.PHONE)]
    return [phone for phone in phones if manages(acting, store.users[phone.user])]


def _entry(request: ApiRequest, extension: Extension) -> Entry:
    return {
        "extension": extension.number,
        "status": int(extension.status),  # not a string, in the samples of both versions
        "registration": [
            {
                "agent": phone.agent,
                "registration": request.number(phone.registration),
                **({"expire": timestamp(phone.expire)} if phone.expire else {}),
            }
            for phone in extension.phones
        ],
    }
