"""Stories: calls in a compact form, in `scenarios/*.stories`. One story:

    forward-to-mobile: A phone is forwarded to a mobile phone, which is answered
      where 400 is a queue
       0  210 dial-in
      15  210 dial-out to carl from ada
      22  210 answer-out
      62  210 hangup-out ANSWER
      62  210 hangup ANSWER
      = in from ada to 210: answered by 210, rang 22, talked 40, ended 62

A callback is a line: seconds since the call began, the extension (`210` is 0003*210), the event
type, and, unless an earlier line of this leg says so, who is called:

    from ada         the caller, a number outside or an extension (default: ada, or the extension)
    to 211           the number dialled; an extension, unless a `?` follows: then just its number
    by 400           the extension that passed the call on

`= ` begins the verdict; a story has one for each call. `without` lists gaps. These begin with
`where`: `400 is a queue`, `600 is unknown` (an extension in a callback is a phone unless said
otherwise), `211 is a phone` (set up, without a callback), `299 sends all` (all event types are
registered on it), `records are compared`, `the PBX is telphin` (then `leg a`, `talked 45` and
`bridged yes` may follow a status).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from offhook.call import Call, Kind, Party
from offhook.dialects import dialect
from offhook.event import CallEvent, EventType
from tests.offhook.calls.folding import BEGAN, calls, play

OUTSIDE = {
    "ada": "441614960150",
    "bob": "447700900123",
    "carl": "447700900456",
    "dora": "442079460999",
}
DID = "442079460100"
_NAMES = {number: name for name, number in OUTSIDE.items()}
_STATUS = {"dial": "CALLING", "answer": "ANSWER"}


@dataclass
class Story:
    """What happens, the kinds of the extensions, and the verdict on each call."""

    name: str
    title: str
    callbacks: list[CallEvent] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    send_all: set[str] = field(default_factory=set)
    records: bool = False
    telphin: bool = False
    region: str = "GB"
    verdicts: list[str] = field(default_factory=list)
    _legs: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def play(self, callbacks: Sequence[CallEvent]) -> list[CallEvent]:
        phones = {each.extension: Kind.PHONE for each in self.callbacks}
        kinds = {k: v for k, v in (phones | self.kinds).items() if k not in self.unknown}
        return play(callbacks, kinds, self.region, records=self.records, all_events=self.send_all)

    def read(self, line: str) -> None:
        """Read an indented line of the story."""
        words = line.split()
        if words[0] == "=":
            self.verdicts.append(line[1:].strip())
        elif words[0] == "where":
            self._where(words[1:])
        else:
            self.callbacks.append(self._callback(words))

    def _where(self, words: list[str]) -> None:
        if words == ["records", "are", "compared"]:
            self.records = True
        elif words == ["the", "PBX", "is", "telphin"]:
            self.telphin = True
        elif words[1:] == ["sends", "all"]:
            self.send_all.add(extended(words[0]))
        elif words[-1] == "unknown":
            self.unknown.add(extended(words[0]))
        else:
            self.kinds[extended(words[0])] = Kind(words[-1])

    def _callback(self, words: list[str]) -> CallEvent:
        at, own, type_, *rest = words
        out = type_.endswith("-out")
        flow = "OUT" if out else "IN"
        status = rest.pop(0) if rest and rest[0].isupper() else _STATUS.get(type_.split("-")[0])
        said = dict(zip(rest[::2], rest[1::2], strict=True))
        leg = f"{flow} {said.get('leg')}"
        if said.keys() & {"from", "to", "by"} or (own, leg) not in self._legs:
            self._legs[own, leg] = parties(own, said, out=out)
        event = EventType.HANGUP if type_.startswith("hangup") else EventType(type_)
        parameters = {"CallID": "1795251600.1", "CallFlow": flow, **self._legs[own, leg]}
        if status:
            parameters["CallStatus"] = status
        if self.telphin:
            parameters |= telphin_parameters(float(at), event, said)
        return dialect("telphin" if self.telphin else event.value)(
            pbx="main",
            extension=extended(own),
            type="telphin" if self.telphin else event.value,
            parameters=parameters,
            received=BEGAN + timedelta(seconds=float(at)),
        )


def parties(own: str, said: dict[str, str], *, out: bool) -> dict[str, str]:
    """The parameters of a leg that say who calls whom."""
    caller = said.get("from", own if out else "ada")
    number = OUTSIDE.get(caller, caller.rstrip("?"))
    found = {} if number == "withheld" else {"CallerIDNum": number}
    if by := said.get("by", own if out else caller if caller.isdigit() else None):
        found["CallerExtension"] = extended(by)
    if out:
        to = said["to"]
        found["CalledNumber"] = OUTSIDE.get(to, to.rstrip("?"))
        return found | ({"CalledExtension": extended(to)} if to.isdigit() else {})
    found["CalledExtension"] = extended(own)
    if caller in OUTSIDE or caller == "withheld":
        return found | {"CalledDID": DID, "CalledNumber": DID}
    return found | {"CalledNumber": own}


def telphin_parameters(at: float, type_: EventType, said: dict[str, str]) -> dict[str, str]:
    moment = BEGAN + timedelta(seconds=at)
    found = {
        "EventType": type_.value.partition("-")[0] if "answer" in type_ else type_.value,
        "EventTime": str(int(moment.timestamp() * 1e6)),
    }
    if "leg" in said:
        found["SubCallID"] = said["leg"]
    if "talked" in said:
        found["Duration"] = str(int(float(said["talked"]) * 1e6))
    if "bridged" in said:
        found["Bridged"] = said["bridged"]
    return found


def extended(number: str) -> str:
    return f"0003*{number}"


def stories(folder: Path) -> Iterator[Story]:
    """All stories in the files of a folder."""
    for file in sorted(folder.glob("*.stories")):
        story = None
        for line in file.read_text().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            if not line.startswith(" "):
                name, title = line.split(": ", 1)
                if story is not None:
                    yield story
                story = Story(name, title)
                continue
            assert story is not None, f"{file.name} begins with an indented line"
            story.read(line.strip())
        if story is not None:
            yield story


def verdicts(told: Sequence[CallEvent]) -> list[str]:
    """The verdict on each call, as a story says it."""
    return [verdict_of(events) for events in calls(told).values()]


def verdict_of(told: Sequence[CallEvent]) -> str:
    """The verdict in the last event about a call, and whether it was told as missed."""
    call = told[-1].summary
    assert call is not None
    assert call.ended is not None
    by = f" by {call.answered_by.partition('*')[2]}" if call.answered_by else ""
    told_as = [each for each in told if each.type is EventType.MISSED_CALL]
    words = [
        f"{call.direction} from {_side(call.caller)} to {_side(call.called)}: {call.outcome}{by}",
        f"rang {_seconds(call.ring_seconds)}",
        *([] if call.talk_seconds == 0 else [f"talked {_seconds(call.talk_seconds)}"]),
        f"ended {_seconds((call.ended - BEGAN).total_seconds())}",
        *([f"without {' '.join(call.gaps)}"] if call.gaps else []),
        *([] if call.closed_by == "hangup" else [f"closed by {call.closed_by}"]),
        *(["missed-call"] if told_as else []),
    ]
    return ", ".join(words)


def _side(party: Party) -> str:
    if party.extension:
        return party.extension.rpartition("*")[2]
    return _NAMES.get(party.number or "", party.number or "withheld")


def _seconds(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds:.10g}"


def is_incomplete(call: Call) -> bool:
    """Return whether the verdict says that something is unknown."""
    return bool(call.gaps) or call.closed_by == "silence"
