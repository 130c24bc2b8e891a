"""A check of ours for schemathesis, which loads this file by name."""

from typing import Any

import schemathesis

# Whose extension it is, whether an id or an agent exists, and that a filter needs a value.
NO_SCHEMA_SAYS = {
    "extension_invalid",
    "pce_id_invalid",
    "qag_agent_invalid",
    "filtervalue_invalid",
}


@schemathesis.check
def refused_only_for_what_no_schema_says(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """A request that fits the description is answered, or refused for a fact about the PBX."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code in (200, 204, 401):
        return
    assert response.status_code == 400, f"status {response.status_code}"
    code = response.json()["error"]["code"]
    assert code in NO_SCHEMA_SAYS, f"a valid request was refused: {code}"
