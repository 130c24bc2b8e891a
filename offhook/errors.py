"""Every error that Offhook raises on purpose: one class per decision the program makes."""

from collections.abc import Sequence


class OffhookError(Exception):
    """The base of all of them."""


class ConfigError(OffhookError):
    """A setting is wrong: the process stops and lists every fault at once.

    Args:
        problems: one sentence for each fault, naming the setting and what to do about it.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class RefusedCallback(OffhookError):
    """The receiver will not take this callback.

    Args:
        status: the HTTP status of the answer, 4xx.
        code: a word for programs, such as `missing_call_id`.
        message: a sentence for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class InboxUnavailable(OffhookError):
    """Redis could not take the event: it is not accepted, and the caller hears so."""


class LeaseLost(OffhookError):
    """Another dispatch serves this cursor now; this one must not touch it any more."""


class CursorMoved(OffhookError):
    """Somebody else has moved a cursor: what is pending comes before all that is still unread."""


class NotYet(OffhookError):
    """What is to be done needs something that is still on its way: it is done the next time."""


class DeliveryError(OffhookError):
    """A handler could not deliver an event. Its message is shown to the operator."""


class TemporaryError(DeliveryError):
    """The other side may take it later.

    Args:
        retry_after: seconds to wait before the next attempt, when the other side said so.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(DeliveryError):
    """No later attempt can succeed: the delivery becomes a dead letter at once."""
