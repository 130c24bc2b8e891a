"""Every error of the client, one class per code that the PBX's documents name.

Sources: VoipNow wiki, HTTP Return Codes (UnifiedAPI v3 and v5), and the failure tables of List
Presence and of the PhoneCallEvents and QueueAgents requests. Three codes of phone call events lie
beyond what was seen of those tables; their names follow the others and are marked so.
"""

from typing import ClassVar

MAX_BODY = 2000  # characters kept of an answer that is not understood


class UnifiedApiError(Exception):
    """The base of all of them."""


class InvalidRequest(UnifiedApiError, ValueError):
    """The request breaks a documented rule, and was not sent."""


class NoAnswer(UnifiedApiError):
    """The PBX was not reached, or its answer did not arrive whole.

    Args:
        sent: whether the request may have reached the PBX; if it did not, nothing has changed.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class NotTrusted(NoAnswer):
    """The PBX's certificate is not one to trust: nothing was sent, and repeating would not help."""


class UnexpectedAnswer(UnifiedApiError):
    """The PBX answered with something that no document describes.

    Attributes:
        status: the HTTP status.
        body: the answer's text, at most `MAX_BODY` characters of it.
    """

    def __init__(self, message: str, *, status: int = 200, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body[:MAX_BODY]


class ApiError(UnifiedApiError):
    """The PBX refused the request.

    A code that no document names, or an error without any, is an `ApiError` itself and no subclass.

    Attributes:
        code: the API's code, such as `extension_invalid`; empty when the answer has none.
        status: the HTTP status.
        message: the API's text.
        body: the answer as it came, at most `MAX_BODY` characters of it.
        retry_after: the seconds to wait that the PBX asked for, if it did.
        attempts: how many times the request was made before this was raised.
    """

    codes: ClassVar[tuple[str, ...]] = ()

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


class UserInvalid(ApiError):
    """The user id is neither a user's nor `@me`, `@viewer` or `@owner`."""

    codes = ("user_invalid",)


class ExtensionInvalid(ApiError):
    """There is no such extension, or it is of a kind that the request is not for."""

    codes = ("extension_invalid",)


class AccessDenied(ApiError):
    """The token is not valid, or its user lacks the permission."""

    codes = ("access_denied", "access_denided")  # the second is a sample's misspelling


class InternalServerError(ApiError):
    """The PBX failed."""

    codes = ("internal_server_error",)


class RequestNotImplemented(ApiError):
    """The PBX has no such request."""

    codes = ("request_not_implemented",)


class FieldsInvalid(ApiError):
    """`fields` names a field that the resource does not have."""

    codes = ("fields_invalid",)


class CountInvalid(ApiError):
    """`count` is not a number below 5000."""

    codes = ("count_invalid",)


class FilterByInvalid(ApiError):
    """`filterBy` is no field that can be filtered by."""

    codes = ("filterby_invalid",)


class FilterOpInvalid(ApiError):
    """`filterOp` is no operator."""

    codes = ("filterop_invalid",)


class FilterValueInvalid(ApiError):
    """`filterValue` is missing, or not what the operator takes."""

    codes = ("filtervalue_invalid",)


class SortOrderInvalid(ApiError):
    """`sortOrder` is no direction."""

    codes = ("sortorder_invalid",)


class StartIndexInvalid(ApiError):
    """`startIndex` is not a number from 0 to 4999."""

    codes = ("startindex_invalid",)


# Phone call events. The pages on creating write pcet_ where the others write pce_.


class EventTypeInvalid(ApiError):
    """The phone call event's type is missing or unknown."""

    codes = ("pce_type_invalid", "pcet_type_invalid")


class EventMethodInvalid(ApiError):
    """The phone call event's method is missing, or neither GET nor POST."""

    codes = ("pce_method_invalid", "pcet_method_invalid")


class EventIdInvalid(ApiError):
    """There is no phone call event with this id."""

    codes = ("pce_id_invalid", "pcet_id_invalid")


class EventUrlInvalid(ApiError):
    """The phone call event's URL is missing or none. (Inferred name.)"""

    codes = ("pce_url_invalid", "pcet_url_invalid")


class EventStatusInvalid(ApiError):
    """The phone call event's status is missing or unknown. (Inferred name.)"""

    codes = ("pce_status_invalid", "pcet_status_invalid")


class EventNoteInvalid(ApiError):
    """The phone call event's note is not a text. (Inferred name.)"""

    codes = ("pce_note_invalid", "pcet_note_invalid")


# Queue agents.


class AgentStatusInvalid(ApiError):
    """The agent's status is missing or unknown."""

    codes = ("status_invalid",)


class AgentInvalid(ApiError):
    """The queue has no such agent."""

    codes = ("qag_agent_invalid",)


# Call records (CDR).


class StartDateInvalid(ApiError):
    """`startDate` is no date of the form 2024-10-05T00:00:00."""

    codes = ("cdr_start_date_invalid",)


class EndDateInvalid(ApiError):
    """`endDate` is no date of the form 2024-10-05T00:00:00."""

    codes = ("cdr_end_date_invalid",)


class SaveStartDateInvalid(ApiError):
    """`saveStartDate` is no date of the form 2024-10-05T00:00:00."""

    codes = ("cdr_save_start_date_invalid",)


class SaveEndDateInvalid(ApiError):
    """`saveEndDate` is no date of the form 2024-10-05T00:00:00."""

    codes = ("cdr_save_end_date_invalid",)


class DatesInvalid(ApiError):
    """A start date is after its end date."""

    codes = ("cdr_invalid_date_parameters",)


class SourceInvalid(ApiError):
    """`source` is neither an extension nor a public number."""

    codes = ("cdr_source_invalid",)


class DestinationInvalid(ApiError):
    """`destination` is neither an extension nor a public number."""

    codes = ("cdr_destination_invalid",)


class FlowInvalid(ApiError):
    """`flow` is unknown."""

    codes = ("cdr_flow_invalid",)


class DispositionInvalid(ApiError):
    """`disposition` is unknown."""

    codes = ("cdr_disposition_invalid",)


class FilterByAnsweredInvalid(ApiError):
    """`filterValue` is no date, and `filterBy` is `answered`."""

    codes = ("cdr_invalid_filter_by_answered",)


class FilterByPublishedInvalid(ApiError):
    """`filterValue` is no date, and `filterBy` is `published`."""

    codes = ("cdr_invalid_filter_by_published",)


class FilterBySourceInvalid(ApiError):
    """`filterValue` is no number, and `filterBy` is `source`."""

    codes = ("cdr_invalid_filter_by_source",)


class FilterByDestinationInvalid(ApiError):
    """`filterValue` is no number, and `filterBy` is `destination`."""

    codes = ("cdr_invalid_filter_by_destination",)


# OAuth (RFC 6749, section 5.2; VoipNow's own pages show no error of it).


class OAuthError(ApiError):
    """The PBX gave no token."""


class InvalidClient(OAuthError):
    """The app's key or secret is wrong."""

    codes = ("invalid_client",)


class InvalidGrant(OAuthError):
    """The refresh token is not valid, or no longer."""

    codes = ("invalid_grant",)


class UnauthorizedClient(OAuthError):
    """The app may not ask for a token in this way: it is not marked as trusted on the PBX."""

    codes = ("unauthorized_client",)


class UnsupportedGrantType(OAuthError):
    """The PBX has no such way to ask for a token."""

    codes = ("unsupported_grant_type",)


class InvalidTokenRequest(OAuthError):
    """The request for a token lacks something."""

    codes = ("invalid_request",)


def class_of(code: str, base: type[ApiError] = ApiError) -> type[ApiError]:
    """The class of a code, or `base` when no document names the code."""
    for kind in base.__subclasses__():
        if code in kind.codes:
            return kind
        if (found := class_of(code, kind)) is not kind:
            return found
    return base
