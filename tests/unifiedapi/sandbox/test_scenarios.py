"""Properties of every scripted call and its callbacks."""

from itertools import islice
from random import Random
from urllib.parse import parse_qsl

import pytest

from tests.callbacks import load, names
from unifiedapi.callback import PARAMETERS, known_parameters
from unifiedapi.resources import EventType
from unifiedapi.sandbox.scenarios import (
    QUEUE,
    Callback,
    Scenario,
    ScriptedCall,
    make_call,
    random_calls,
)

PHONES = ["0003*210", "0003*211", "0003*212", "0003*213"]
DIALS = {EventType.DIAL_IN, EventType.DIAL_OUT}
ANSWERS = {EventType.ANSWER_IN, EventType.ANSWER_OUT}
HANGUP_STATUSES = {"ANSWER", "BUSY", "NOANSWER", "CANCEL", "CONGESTION", "CHANUNAVAIL"}


def some(*scenarios: Scenario) -> list[ScriptedCall]:
    """Return 50 calls of each scenario, by default of all."""
    return [
        make_call(scenario, Random(seed), PHONES)
        for scenario in scenarios or Scenario
        for seed in range(50)
    ]


def legs(call: ScriptedCall) -> list[tuple[str, list[Callback]]]:
    """Return the legs with their extensions. An extension that is dialled again has two."""
    found: list[tuple[str, list[Callback]]] = []
    running: dict[tuple[str, str], list[Callback]] = {}
    for callback in call.callbacks:
        key = callback.extension, callback.parameters["CallFlow"]
        if callback.type in DIALS:
            running[key] = []
            found.append((callback.extension, running[key]))
        running[key].append(callback)
    return found


def test_leg_is_dialled_first_and_hung_up_last() -> None:
    for call in some():
        for _, leg in legs(call):
            types = [callback.type for callback in leg]
            assert types[0] in DIALS
            assert types[-1] is EventType.HANGUP
            assert len(set(types)) == len(types) == 2 + len(ANSWERS & set(types))


def test_callbacks_are_sorted_and_no_two_of_a_leg_coincide() -> None:
    for call in some():
        assert call.callbacks[0].at == 0
        assert list(call.callbacks) == sorted(call.callbacks, key=lambda callback: callback.at)
        for _, leg in legs(call):
            assert len({callback.at for callback in leg}) == len(leg)


def test_callbacks_of_a_call_have_the_same_ids() -> None:
    for call in some():
        assert {callback.parameters["CallID"] for callback in call.callbacks} == {call.id}
        assert len({callback.parameters["CallAPIID"] for callback in call.callbacks}) == 1


def test_status_is_documented_for_the_event_type() -> None:
    for call in some():
        for callback in call.callbacks:
            status = callback.parameters["CallStatus"]
            if callback.type in DIALS:
                assert status == "CALLING"
            elif callback.type in ANSWERS:
                assert status == "ANSWER"
            else:
                assert status in HANGUP_STATUSES


def test_leg_ends_as_answered_only_if_it_was_answered() -> None:
    for call in some():
        for _, leg in legs(call):
            answered = any(callback.type in ANSWERS for callback in leg)
            assert (leg[-1].parameters["CallStatus"] == "ANSWER") is answered


def test_parameters_are_documented_and_not_empty() -> None:
    for call in some():
        for callback in call.callbacks:
            assert set(callback.parameters) <= set(PARAMETERS)
            assert all(callback.parameters.values())


def test_flow_matches_event_type_and_extension() -> None:
    for call in some():
        for callback in call.callbacks:
            flow = callback.parameters["CallFlow"]
            assert callback.type is EventType.HANGUP or callback.type.name.endswith(f"_{flow}")
            side = {"IN": "CalledExtension", "OUT": "CallerExtension"}[flow]
            assert callback.parameters[side] == callback.extension


def test_status_of_an_unanswered_call_is_the_reason() -> None:
    for scenario, status in (
        (Scenario.MISSED, "NOANSWER"),
        (Scenario.BUSY, "BUSY"),
        (Scenario.CANCELLED, "CANCEL"),
        (Scenario.OUTGOING_MISSED, "NOANSWER"),
        (Scenario.OUTGOING_BUSY, "BUSY"),
    ):
        for call in some(scenario):
            assert len(call.callbacks) == 2
            assert call.callbacks[-1].parameters["CallStatus"] == status


def test_outgoing_call_has_no_called_extension() -> None:
    for call in some(Scenario.OUTGOING):
        assert [callback.type.label for callback in call.callbacks] == [
            "dial-out",
            "answer-out",
            "hangup",
        ]
        for callback in call.callbacks:
            assert "CalledExtension" not in callback.parameters
            assert "CalledDID" not in callback.parameters


def test_ring_group_rings_three_phones_and_one_answers() -> None:
    for call in some(Scenario.RING_GROUP):
        dials = [callback for callback in call.callbacks if callback.type is EventType.DIAL_IN]
        assert len({callback.extension for callback in dials}) == 3
        assert {callback.at for callback in dials} == {0}
        (answer,) = [callback for callback in call.callbacks if callback.type in ANSWERS]
        silent = [
            callback
            for callback in call.callbacks
            if callback.type is EventType.HANGUP and callback.extension != answer.extension
        ]
        assert [callback.parameters["CallStatus"] for callback in silent] == ["NOANSWER"] * 2
        assert all(answer.at < callback.at < answer.at + 1 for callback in silent)


def test_transfer_moves_the_call_to_another_phone() -> None:
    for call in some(Scenario.TRANSFER):
        first, second = legs(call)
        assert first[1][0].at < second[1][0].at
        assert {callback.parameters["CallerExtension"] for callback in second[1]} == {first[0]}
        numbers = {callback.parameters["CallerIDNum"] for callback in call.callbacks}
        assert len(numbers) == 1


def test_queue_tries_agents_in_turn() -> None:
    for call in some(Scenario.QUEUE):
        (queue, waiting), (_, silent), (_, willing) = legs(call)
        assert queue == QUEUE
        assert waiting[0].at < silent[0].at < silent[-1].at < willing[0].at < waiting[-1].at
        assert silent[-1].parameters["CallStatus"] == "NOANSWER"
        assert willing[-1].parameters["CallStatus"] == "ANSWER"


def test_both_legs_of_an_internal_call_name_both_phones() -> None:
    for call in some(Scenario.INTERNAL):
        (calling, _), (called, _) = legs(call)
        for callback in call.callbacks:
            assert callback.parameters["CallerExtension"] == calling
            assert callback.parameters["CalledExtension"] == called
            assert "CalledDID" not in callback.parameters


def test_unanswered_ring_group_stops_ringing_at_once() -> None:
    for scenario, status in (
        (Scenario.RING_GROUP_MISSED, "NOANSWER"),
        (Scenario.RING_GROUP_CANCELLED, "CANCEL"),
    ):
        for call in some(scenario):
            hangups = call.callbacks[3:]
            assert len({callback.extension for callback in hangups}) == 3
            assert {callback.parameters["CallStatus"] for callback in hangups} == {status}
            assert len({callback.at for callback in hangups}) == 1


def test_attended_transfer_calls_the_second_phone_before_hanging_up() -> None:
    for call in some(Scenario.TRANSFER_ATTENDED):
        (extension, first), (asking, asked), (_, second) = legs(call)
        assert extension == asking
        assert first[1].at < asked[0].at < second[0].at < second[1].at < first[-1].at
        assert second[-1] is call.callbacks[-1]


def test_queue_offers_the_call_to_its_only_agent_again() -> None:
    for call in some(Scenario.QUEUE_AGAIN):
        _, (agent, silent), (again, willing) = legs(call)
        assert agent == again
        assert silent[-1].at < willing[0].at
        statuses = [leg[-1].parameters["CallStatus"] for leg in (silent, willing)]
        assert statuses == ["NOANSWER", "ANSWER"]


def test_only_the_queue_answers_a_missed_queue_call() -> None:
    for call in some(Scenario.QUEUE_MISSED):
        answers = [callback for callback in call.callbacks if callback.type in ANSWERS]
        assert [callback.extension for callback in answers] == [QUEUE]


def test_same_seed_makes_the_same_calls() -> None:
    once, again = (list(islice(random_calls(Random(7), PHONES), 100)) for _ in range(2))
    assert once == again
    assert once != list(islice(random_calls(Random(8), PHONES), 100))


def test_call_ids_do_not_repeat() -> None:
    calls = islice(random_calls(Random(7), PHONES), 10_000)
    assert len({call.id for call in calls}) == 10_000


def test_random_calls_use_all_scenarios_and_phones() -> None:
    calls = list(islice(random_calls(Random(7), PHONES, queue="0003*499"), 500))
    assert {call.scenario for call in calls} == set(Scenario)
    extensions = {callback.extension for call in calls for callback in call.callbacks}
    assert extensions == {*PHONES, "0003*499"}


def test_random_calls_leave_out_scenarios_that_need_more_phones() -> None:
    calls = islice(random_calls(Random(7), PHONES[:1]), 100)
    assert all(call.scenario.phones == 1 for call in calls)


def test_too_few_phones_are_an_error() -> None:
    with pytest.raises(ValueError, match="ring-group needs 3 phones, but there are 2"):
        make_call(Scenario.RING_GROUP, Random(7), PHONES[:2])
    with pytest.raises(ValueError, match="0 phones are not enough"):
        random_calls(Random(7), [])


def test_payloads_match_the_scenario_of_the_same_name() -> None:
    for folder, scenario in {
        "answered-incoming": Scenario.ANSWERED,
        "answered-outgoing": Scenario.OUTGOING,
        "missed": Scenario.MISSED,
        "busy": Scenario.BUSY,
        "cancelled": Scenario.CANCELLED,
        "ring-group": Scenario.RING_GROUP,
        "transfer": Scenario.TRANSFER,
        "queue": Scenario.QUEUE,
    }.items():
        payloads = [load(name) for name in names(folder)]
        made = make_call(scenario, Random(7), PHONES)
        assert [payload.names[2] for payload in payloads] == [
            callback.type.label for callback in made.callbacks
        ]
        for payload, callback in zip(payloads, made.callbacks, strict=True):
            parameters = known_parameters(dict(parse_qsl(payload.parameters.decode())))
            assert {*parameters, "CallerIDName"} == {*callback.parameters, "CallerIDName"}
            for name in ("CallStatus", "CallFlow"):
                assert parameters[name] == callback.parameters[name]


def test_payload_is_a_complete_request() -> None:
    assert names()
    for name in names():
        payload = load(name)
        assert payload.path == "/".join(("/callback", *payload.names, "TOKEN")), name
        assert len(payload.body) == int(payload.headers.get("content-length", 0)), name
        assert (payload.method == "POST") is bool(payload.body), name
