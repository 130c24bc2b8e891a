"""Every error that Offhook raises on purpose: one class per decision the program makes."""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches


class OffhookError(Exception):
    """Base class."""


class ConfigError(OffhookError):
    """The configuration is wrong: the process stops and lists all faults.

    Args:
        problems: one sentence for each fault, with the setting and what to do.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class BrokenPlugin(ConfigError):
    """A plugin's own code fails when it is loaded: the other plugins can run without it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the known word that it resembles, if any."""
    by_lower_case = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), by_lower_case, n=1, cutoff=0.7)
    return f"; did you mean {by_lower_case[close[0]]!r}?" if close else ""


def not_configured(kind: str, name: str, configured: Collection[str]) -> str:
    """A sentence about a name that is not configured, such as that of a handler."""
    return (
        f"no {kind} is configured as {name!r}; configured: {', '.join(configured) or 'none'}"
        f"{did_you_mean(name, configured)}"
    )


class RefusedCallback(OffhookError):
    """The receiver refuses this callback.

    Args:
        status: the HTTP status of the response, 4xx.
        code: a word for programs, such as `missing_call_id`.
        message: a sentence for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class InboxUnavailable(OffhookError):
    """Redis could not take the event, so it is not accepted."""


class LaterLayout(ConfigError, InboxUnavailable):
    """A later version of Offhook has changed the layout of the inbox: this one leaves it alone."""


class LeaseLost(OffhookError):
    """Another process serves this partition now; this one must leave it alone."""


class FoldMoved(OffhookError):
    """The calls were folded further than this process knows: read again what is stored."""


class NotYet(OffhookError):
    """A prerequisite is still on its way: try again next time."""


class DeliveryError(OffhookError):
    """A handler could not deliver an event. The operator sees the message."""


class TemporaryError(DeliveryError):
    """The target may accept the event later.

    Args:
        retry_after: seconds to wait before the next attempt, if the target named them.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class HandlerTimeout(TemporaryError):
    """A handler took too long. `hung`: its thread is still running and cannot be stopped."""

    def __init__(self, message: str, *, hung: bool) -> None:
        super().__init__(message)
        self.hung = hung


class PermanentError(DeliveryError):
    """No later attempt can succeed: the delivery becomes a dead letter at once."""
