"""The parameters of a callback, in the spellings of every document."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unifiedapi.callback import PARAMETERS, TELPHIN_PARAMETERS, CallStatus, known_parameters


@pytest.mark.parametrize("name", PARAMETERS + TELPHIN_PARAMETERS)
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
def test_every_documented_parameter_is_known_in_any_case(name: str, spelled: type[str]) -> None:
    assert known_parameters({spelled(name): "x"}) == {name: "x"}


def test_both_spellings_of_the_callers_name_are_known() -> None:
    assert known_parameters({"CallerIDNam": "Jo"}) == {"CallerIDName": "Jo"}
    assert known_parameters({"CallerIDName": "Jo", "CallerIDNam": ""}) == {"CallerIDName": "Jo"}


def test_empty_is_absent_and_unknown_is_left_out() -> None:
    said = {"CallID": " 1 ", "CalledDID": "", "CalledNumber": "  ", "Other": "x"}
    assert known_parameters(said) == {"CallID": "1"}


@given(st.dictionaries(st.text(), st.text()))
def test_any_parameters_can_be_read(parameters: dict[str, str]) -> None:
    assert set(known_parameters(parameters)) <= {*PARAMETERS, *TELPHIN_PARAMETERS}


def test_a_status_of_either_document_has_a_name() -> None:
    both = "CALLING ANSWER BUSY NOANSWER CANCEL CONGESTION CHANUNAVAIL UNKNOWN"
    assert {str(status) for status in CallStatus} == set(both.split())
