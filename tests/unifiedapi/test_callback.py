"""Reading the parameters of a callback."""

from hypothesis import given
from hypothesis import strategies as st

from unifiedapi.callback import PARAMETERS, TELPHIN_PARAMETERS, CallStatus, known_parameters


def test_documented_parameters_are_known_in_any_case() -> None:
    for name in PARAMETERS + TELPHIN_PARAMETERS:
        for spelling in (name, name.lower(), name.upper()):
            assert known_parameters({spelling: "x"}) == {name: "x"}


def test_both_spellings_of_the_callers_name_are_known() -> None:
    assert known_parameters({"CallerIDNam": "Jo"}) == {"CallerIDName": "Jo"}
    assert known_parameters({"CallerIDName": "Jo", "CallerIDNam": ""}) == {"CallerIDName": "Jo"}


def test_blank_and_unknown_parameters_are_left_out() -> None:
    parameters = {"CallID": " 1 ", "CalledDID": "", "CalledNumber": "  ", "Other": "x"}
    assert known_parameters(parameters) == {"CallID": "1"}


@given(st.dictionaries(st.text(), st.text()))
def test_any_parameters_can_be_read(parameters: dict[str, str]) -> None:
    assert set(known_parameters(parameters)) <= {*PARAMETERS, *TELPHIN_PARAMETERS}


def test_statuses_of_both_documents_have_names() -> None:
    both = "CALLING ANSWER BUSY NOANSWER CANCEL CONGESTION CHANUNAVAIL UNKNOWN"
    assert {str(status) for status in CallStatus} == set(both.split())
