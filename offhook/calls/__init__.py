"""Events folded into calls: first facts, then legs and roles, a summary, and the call's events."""

from offhook.calls.closing import goes_on, name_of_latest, settles_after, used_again
from offhook.calls.facts import CallState, Closing, fold, from_state, to_state
from offhook.calls.filter import CallFilter, terms
from offhook.calls.inside import extensions_in, extensions_of, with_extensions
from offhook.calls.story import tell
from offhook.calls.summary import summarize
from offhook.calls.worklist import MissedCaller, Worklist, is_missed, outside_number

__all__ = [
    "CallFilter",
    "CallState",
    "Closing",
    "MissedCaller",
    "Worklist",
    "extensions_in",
    "extensions_of",
    "fold",
    "from_state",
    "goes_on",
    "is_missed",
    "name_of_latest",
    "outside_number",
    "settles_after",
    "summarize",
    "tell",
    "terms",
    "to_state",
    "used_again",
    "with_extensions",
]
