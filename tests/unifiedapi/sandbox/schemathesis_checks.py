"""A custom check, which schemathesis loads by the name of this file."""

from typing import Any

import schemathesis

# Facts that a schema cannot express: who owns an extension, whether an id or an agent exists, which
# values suit a filter, how many days a month has, the order of dates.
NOT_IN_A_SCHEMA = {
    "extension_invalid",
    "pce_id_invalid",
    "qag_agent_invalid",
    "filtervalue_invalid",
    "cdr_invalid_filter_by_source",
    "cdr_invalid_filter_by_destination",
    "cdr_invalid_filter_by_published",
    "cdr_invalid_filter_by_answered",
    "cdr_start_date_invalid",
    "cdr_end_date_invalid",
    "cdr_save_start_date_invalid",
    "cdr_save_end_date_invalid",
    "cdr_invalid_date_parameters",
}


@schemathesis.check
def valid_request_is_not_refused(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """A request that matches the schema succeeds, or is refused for another reason."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code in (200, 204, 401):
        return
    assert response.status_code == 400, f"status {response.status_code}"
    code = response.json()["error"]["code"]
    assert code in NOT_IN_A_SCHEMA, f"a valid request was refused: {code}"
