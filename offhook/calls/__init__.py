"""Events folded into calls: first facts, then legs, a summary, and the events about the call."""

from offhook.calls.facts import CallState, Closing, fold, from_state, to_state
from offhook.calls.legs import over
from offhook.calls.story import tell
from offhook.calls.summary import summarize

__all__ = ["CallState", "Closing", "fold", "from_state", "over", "summarize", "tell", "to_state"]
