"""Calls and their callbacks: what holds for every call, whatever chance makes of it."""

from itertools import islice
from random import Random
from urllib.parse import parse_qsl

import pytest

from tests.callbacks import load, names
from unifiedapi.callback import PARAMETERS, known_parameters
from unifiedapi.resources import EventType
from unifiedapi.sandbox.scenarios import (
    QUEUE,
    Call,
    Callback,
    Scenario,
    make_call,
    random_calls,
)

PHONES = ["0003*210", "0003*211", "0003*212", "0003*213"]
DIALS = {EventType.DIAL_IN, EventType.DIAL_OUT}
ANSWERS = {EventType.ANSWER_IN, EventType.ANSWER_OUT}
HANGUP_STATUSES = {"ANSWER", "BUSY", "NOANSWER", "CANCEL", "CONGESTION", "CHANUNAVAIL"}

every_scenario = pytest.mark.parametrize("scenario", list(Scenario))


def some(scenario: Scenario) -> list[Call]:
    return [make_call(scenario, Random(seed), PHONES) for seed in range(50)]


def legs(call: Call) -> list[tuple[str, list[Callback]]]:
    """The legs, each with its extension: one that is dialled again is in the call again."""
    found: list[tuple[str, list[Callback]]] = []
    running: dict[tuple[str, str], list[Callback]] = {}
    for callback in call.callbacks:
        key = callback.extension, callback.parameters["CallFlow"]
        if callback.type in DIALS:
            running[key] = []
            found.append((callback.extension, running[key]))
        running[key].append(callback)
    return found


@every_scenario
def test_every_leg_is_dialled_first_and_hung_up_last_and_each_only_once(
    scenario: Scenario,
) -> None:
    for call in some(scenario):
        for _, leg in legs(call):
            types = [callback.type for callback in leg]
            assert types[0] in DIALS
            assert types[-1] is EventType.HANGUP
            assert len(set(types)) == len(types) == 2 + len(ANSWERS & set(types))


@every_scenario
def test_callbacks_are_sorted_and_those_of_a_leg_are_at_different_times(
    scenario: Scenario,
) -> None:
    for call in some(scenario):
        assert call.callbacks[0].at == 0
        assert list(call.callbacks) == sorted(call.callbacks, key=lambda callback: callback.at)
        for _, leg in legs(call):
            assert len({callback.at for callback in leg}) == len(leg)


@every_scenario
def test_all_callbacks_of_a_call_share_its_ids(scenario: Scenario) -> None:
    for call in some(scenario):
        assert {callback.parameters["CallID"] for callback in call.callbacks} == {call.id}
        assert len({callback.parameters["CallAPIID"] for callback in call.callbacks}) == 1


@every_scenario
def test_the_status_is_one_that_the_documents_give_the_event_type(scenario: Scenario) -> None:
    for call in some(scenario):
        for callback in call.callbacks:
            status = callback.parameters["CallStatus"]
            if callback.type in DIALS:
                assert status == "CALLING"
            elif callback.type in ANSWERS:
                assert status == "ANSWER"
            else:
                assert status in HANGUP_STATUSES


@every_scenario
def test_a_leg_ends_as_answered_if_and_only_if_it_was(scenario: Scenario) -> None:
    for call in some(scenario):
        for _, leg in legs(call):
            answered = any(callback.type in ANSWERS for callback in leg)
            assert (leg[-1].parameters["CallStatus"] == "ANSWER") is answered


@every_scenario
def test_parameters_are_the_documented_ones_and_none_is_empty(scenario: Scenario) -> None:
    for call in some(scenario):
        for callback in call.callbacks:
            assert set(callback.parameters) <= set(PARAMETERS)
            assert all(callback.parameters.values())


@every_scenario
def test_the_flow_agrees_with_the_event_type_and_the_extension_with_the_flow(
    scenario: Scenario,
) -> None:
    for call in some(scenario):
        for callback in call.callbacks:
            flow = callback.parameters["CallFlow"]
            assert callback.type is EventType.HANGUP or callback.type.name.endswith(f"_{flow}")
            side = {"IN": "CalledExtension", "OUT": "CallerExtension"}[flow]
            assert callback.parameters[side] == callback.extension


@pytest.mark.parametrize(
    ("scenario", "status"),
    [
        (Scenario.MISSED, "NOANSWER"),
        (Scenario.BUSY, "BUSY"),
        (Scenario.CANCELLED, "CANCEL"),
        (Scenario.OUTGOING_MISSED, "NOANSWER"),
        (Scenario.OUTGOING_BUSY, "BUSY"),
    ],
)
def test_an_unanswered_call_says_why(scenario: Scenario, status: str) -> None:
    for call in some(scenario):
        assert len(call.callbacks) == 2
        assert call.callbacks[-1].parameters["CallStatus"] == status


def test_an_outgoing_call_names_who_calls_and_no_extension_as_called() -> None:
    for call in some(Scenario.OUTGOING):
        assert [callback.type.label for callback in call.callbacks] == [
            "dial-out",
            "answer-out",
            "hangup",
        ]
        for callback in call.callbacks:
            assert "CalledExtension" not in callback.parameters
            assert "CalledDID" not in callback.parameters


def test_three_phones_of_a_ring_group_ring_at_once_and_one_answers() -> None:
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


def test_a_transfer_goes_from_one_phone_to_another_in_the_same_call() -> None:
    for call in some(Scenario.TRANSFER):
        first, second = legs(call)
        assert first[1][0].at < second[1][0].at
        assert {callback.parameters["CallerExtension"] for callback in second[1]} == {first[0]}
        numbers = {callback.parameters["CallerIDNum"] for callback in call.callbacks}
        assert len(numbers) == 1


def test_a_queue_tries_one_agent_after_the_other() -> None:
    for call in some(Scenario.QUEUE):
        (queue, waiting), (_, silent), (_, willing) = legs(call)
        assert queue == QUEUE
        assert waiting[0].at < silent[0].at < silent[-1].at < willing[0].at < waiting[-1].at
        assert silent[-1].parameters["CallStatus"] == "NOANSWER"
        assert willing[-1].parameters["CallStatus"] == "ANSWER"


def test_one_phone_calls_another_and_both_legs_name_both() -> None:
    for call in some(Scenario.INTERNAL):
        (calling, _), (called, _) = legs(call)
        for callback in call.callbacks:
            assert callback.parameters["CallerExtension"] == calling
            assert callback.parameters["CalledExtension"] == called
            assert "CalledDID" not in callback.parameters


@pytest.mark.parametrize(
    ("scenario", "status"),
    [(Scenario.RING_GROUP_MISSED, "NOANSWER"), (Scenario.RING_GROUP_CANCELLED, "CANCEL")],
)
def test_a_ring_group_that_nobody_answers_stops_ringing_at_once(
    scenario: Scenario, status: str
) -> None:
    for call in some(scenario):
        hangups = call.callbacks[3:]
        assert len({callback.extension for callback in hangups}) == 3
        assert {callback.parameters["CallStatus"] for callback in hangups} == {status}
        assert len({callback.at for callback in hangups}) == 1


def test_an_attended_transfer_asks_the_second_phone_before_the_first_one_hangs_up() -> None:
    for call in some(Scenario.TRANSFER_ATTENDED):
        (extension, first), (asking, asked), (_, second) = legs(call)
        assert extension == asking
        assert first[1].at < asked[0].at < second[0].at < second[1].at < first[-1].at
        assert second[-1] is call.callbacks[-1]


def test_a_queue_offers_the_call_to_its_only_agent_again() -> None:
    for call in some(Scenario.QUEUE_AGAIN):
        _, (agent, silent), (again, willing) = legs(call)
        assert agent == again
        assert silent[-1].at < willing[0].at
        statuses = [leg[-1].parameters["CallStatus"] for leg in (silent, willing)]
        assert statuses == ["NOANSWER", "ANSWER"]


def test_a_queue_that_nobody_takes_is_answered_by_the_queue_alone() -> None:
    for call in some(Scenario.QUEUE_MISSED):
        answers = [callback for callback in call.callbacks if callback.type in ANSWERS]
        assert [callback.extension for callback in answers] == [QUEUE]


def test_the_same_seed_makes_the_same_calls() -> None:
    once, again = (list(islice(random_calls(Random(7), PHONES), 100)) for _ in range(2))
    assert once == again
    assert once != list(islice(random_calls(Random(8), PHONES), 100))


def test_call_ids_do_not_repeat() -> None:
    calls = islice(random_calls(Random(7), PHONES), 10_000)
    assert len({call.id for call in calls}) == 10_000


def test_random_calls_are_a_mix_of_all_scenarios_on_all_phones() -> None:
    calls = list(islice(random_calls(Random(7), PHONES, queue="0003*499"), 500))
    assert {call.scenario for call in calls} == set(Scenario)
    extensions = {callback.extension for call in calls for callback in call.callbacks}
    assert extensions == {*PHONES, "0003*499"}


def test_random_calls_leave_out_what_takes_more_phones_than_there_are() -> None:
    calls = islice(random_calls(Random(7), PHONES[:1]), 100)
    assert all(call.scenario.phones == 1 for call in calls)


def test_too_few_phones_are_refused() -> None:
    with pytest.raises(ValueError, match="ring-group takes 3 phones, there are 2"):
        make_call(Scenario.RING_GROUP, Random(7), PHONES[:2])
    with pytest.raises(ValueError, match="0 phones are too few"):
        random_calls(Random(7), [])


@pytest.mark.parametrize(
    "folder",
    [
        "answered-incoming",
        "answered-outgoing",
        "missed",
        "busy",
        "cancelled",
        "ring-group",
        "transfer",
        "queue",
    ],
)
def test_payloads_tell_the_same_story_as_the_scenario_of_that_name(folder: str) -> None:
    scenario = {
        "answered-incoming": Scenario.ANSWERED,
        "answered-outgoing": Scenario.OUTGOING,
    }.get(folder) or Scenario(folder)
    told = [load(name) for name in names(folder)]
    made = make_call(scenario, Random(7), PHONES)
    assert [payload.names[2] for payload in told] == [
        callback.type.label for callback in made.callbacks
    ]
    for payload, callback in zip(told, made.callbacks, strict=True):
        told_parameters = known_parameters(dict(parse_qsl(payload.parameters.decode())))
        assert set(told_parameters) | {"CallerIDName"} == {*callback.parameters, "CallerIDName"}
        for name in ("CallStatus", "CallFlow"):
            assert told_parameters[name] == callback.parameters[name]


@pytest.mark.parametrize("name", names())
def test_a_payload_is_a_whole_request(name: str) -> None:
    payload = load(name)
    assert payload.path == "/".join(("/callback", *payload.names, "TOKEN"))
    assert len(payload.body) == int(payload.headers.get("content-length", 0))
    assert (payload.method == "POST") is bool(payload.body)
