"""All errors of the client, one class for each error code in the PBX's documents.

Sources: VoipNow wiki, HTTP Return Codes (UnifiedAPI v3 and v5), and the failure tables of List
Presence and of the PhoneCallEvents and QueueAgents requests. Some codes are inferred from the
pattern of the others, because we could not see the end of the PhoneCallEvents tables.
"""

from collections.abc import Sequence
from typing import ClassVar

MAX_BODY = 2000  # characters of the response that an error keeps


class UnifiedApiError(Exception):
    """Base class of all errors."""


class InvalidRequest(UnifiedApiError, ValueError):
    """The request breaks a documented rule. It was not sent."""


class NoAnswer(UnifiedApiError):
    """The PBX could not be reached, or its response did not arrive completely.

    Args:
        sent: whether the request may have reached the PBX; if not, it changed nothing.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class NotTrusted(NoAnswer):
    """The PBX's certificate is not trusted. Nothing was sent, and a retry would not help."""


class UnexpectedAnswer(UnifiedApiError):
    """The response does not match the documents.

    Attributes:
        status: the HTTP status.
        body: the first `MAX_BODY` characters of the response.
    """

    def __init__(self, message: str, *, status: int = 200, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body[:MAX_BODY]


_CLASSES: dict[str, type["ApiError"]] = {}  # by error code


class ApiError(UnifiedApiError):
    """The PBX refused the request.

    A documented code has its own subclass. Anything else is an `ApiError` itself.

    Attributes:
        code: the API's code, such as `extension_invalid`; empty if the response has none.
        status: the HTTP status.
        message: the API's text.
        body: the first `MAX_BODY` characters of the response.
        retry_after: seconds to wait, if the PBX sent that.
        attempts: how many times the request was made.
    """

    codes: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, codes: Sequence[str] = ()) -> None:
        cls.codes = tuple(codes)
        _CLASSES.update(dict.fromkeys(codes, cls))

    def __init__(
        self,
        code: str,
        status: int,
        message: str,
        *,
        body: str = "",
        retry_after: float | None = None,
        attempts: int = 1,
    ) -> None:
        self.code = code
        self.status = status
        self.message = message[:MAX_BODY]
        self.body = body[:MAX_BODY]
        self.retry_after = retry_after
        self.attempts = attempts
        super().__init__(f"{code or 'HTTP error'} ({status}): {self.message}".removesuffix(": "))


def class_of(code: str, base: type[ApiError] = ApiError) -> type[ApiError]:
    """Return the subclass of `base` for an error code, or `base` if there is none."""
    found = _CLASSES.get(code, base)
    return found if issubclass(found, base) else base


class UserInvalid(ApiError, codes=["user_invalid"]):
    """The user is not a user's id, `@me`, `@viewer` or `@owner`."""


class ExtensionInvalid(ApiError, codes=["extension_invalid"]):
    """The extension does not exist, or the request does not apply to its kind."""


class AccessDenied(ApiError, codes=["access_denied", "access_denided"]):
    """The token is not valid, or its user lacks permission. (One sample misspells the code.)"""


class InternalServerError(ApiError, codes=["internal_server_error"]):
    """The PBX failed."""


class RequestNotImplemented(ApiError, codes=["request_not_implemented"]):
    """The PBX does not implement this request."""


class FieldsInvalid(ApiError, codes=["fields_invalid"]):
    """`fields` names a field that the resource does not have."""


class CountInvalid(ApiError, codes=["count_invalid"]):
    """`count` is not a number below 5000."""


class FilterByInvalid(ApiError, codes=["filterby_invalid"]):
    """`filterBy` names a field that cannot be filtered by."""


class FilterOpInvalid(ApiError, codes=["filterop_invalid"]):
    """`filterOp` is not a known operator."""


class FilterValueInvalid(ApiError, codes=["filtervalue_invalid"]):
    """`filterValue` is missing or does not suit the operator."""


class SortOrderInvalid(ApiError, codes=["sortorder_invalid"]):
    """`sortOrder` is neither ascending nor descending."""


class StartIndexInvalid(ApiError, codes=["startindex_invalid"]):
    """`startIndex` is not a number from 0 to 4999."""


# Phone call events. The pages about creating them write pcet_, the others pce_.


class EventTypeInvalid(ApiError, codes=["pce_type_invalid", "pcet_type_invalid"]):
    """The type is missing or unknown."""


class EventMethodInvalid(ApiError, codes=["pce_method_invalid", "pcet_method_invalid"]):
    """The method is missing, or neither GET nor POST."""


class EventIdInvalid(ApiError, codes=["pce_id_invalid", "pcet_id_invalid"]):
    """There is no phone call event with this id."""


class EventUrlInvalid(ApiError, codes=["pce_url_invalid", "pcet_url_invalid"]):
    """The URL is missing or not valid. (Inferred codes.)"""


class EventStatusInvalid(ApiError, codes=["pce_status_invalid", "pcet_status_invalid"]):
    """The status is missing or unknown. (Inferred codes.)"""


class EventNoteInvalid(ApiError, codes=["pce_note_invalid", "pcet_note_invalid"]):
    """The note is not a string. (Inferred codes.)"""


# Queue agents


class AgentStatusInvalid(ApiError, codes=["status_invalid"]):
    """The agent's status is missing or unknown."""


class AgentInvalid(ApiError, codes=["qag_agent_invalid"]):
    """The queue does not have this agent."""


# Call records (CDR). Their dates look like 2024-10-05T00:00:00.


class StartDateInvalid(ApiError, codes=["cdr_start_date_invalid"]):
    """`startDate` is not a date."""


class EndDateInvalid(ApiError, codes=["cdr_end_date_invalid"]):
    """`endDate` is not a date."""


class SaveStartDateInvalid(ApiError, codes=["cdr_save_start_date_invalid"]):
    """`saveStartDate` is not a date."""


class SaveEndDateInvalid(ApiError, codes=["cdr_save_end_date_invalid"]):
    """`saveEndDate` is not a date."""


class DatesInvalid(ApiError, codes=["cdr_invalid_date_parameters"]):
    """A start date is after its end date."""


class SourceInvalid(ApiError, codes=["cdr_source_invalid"]):
    """`source` is neither an extension nor a public number."""


class DestinationInvalid(ApiError, codes=["cdr_destination_invalid"]):
    """`destination` is neither an extension nor a public number."""


class FlowInvalid(ApiError, codes=["cdr_flow_invalid"]):
    """`flow` is unknown."""


class DispositionInvalid(ApiError, codes=["cdr_disposition_invalid"]):
    """`disposition` is unknown."""


class FilterByAnsweredInvalid(ApiError, codes=["cdr_invalid_filter_by_answered"]):
    """The `filterValue` for `answered` is not a date."""


class FilterByPublishedInvalid(ApiError, codes=["cdr_invalid_filter_by_published"]):
    """The `filterValue` for `published` is not a date."""


class FilterBySourceInvalid(ApiError, codes=["cdr_invalid_filter_by_source"]):
    """The `filterValue` for `source` is not a number."""


class FilterByDestinationInvalid(ApiError, codes=["cdr_invalid_filter_by_destination"]):
    """The `filterValue` for `destination` is not a number."""


# OAuth (RFC 6749, section 5.2; VoipNow's own pages show no OAuth errors)


class OAuthError(ApiError):
    """The PBX did not issue a token."""


class InvalidClient(OAuthError, codes=["invalid_client"]):
    """The app's key or secret is wrong."""


class InvalidGrant(OAuthError, codes=["invalid_grant"]):
    """The refresh token is not valid, or no longer valid."""


class UnauthorizedClient(OAuthError, codes=["unauthorized_client"]):
    """The app may not use this grant type: it is not marked as trusted on the PBX."""


class UnsupportedGrantType(OAuthError, codes=["unsupported_grant_type"]):
    """The PBX does not support this grant type."""


class InvalidTokenRequest(OAuthError, codes=["invalid_request"]):
    """The token request is incomplete."""
