"""Options that several commands share."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from offhook_cli.options import moment


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        (" 1 w ", timedelta(weeks=1)),
    ],
)
def test_duration_is_counted_back_from_now(text: str, ago: timedelta) -> None:
    assert abs(datetime.now(UTC) - ago - moment(text)) < timedelta(seconds=5)


def test_dates_are_local_unless_they_have_an_offset() -> None:
    assert moment("2026-05-01") == datetime(2026, 5, 1).astimezone()
    assert moment("2026-05-01 14:00") == datetime(2026, 5, 1, 14).astimezone()
    assert moment("2026-05-01T14:00Z") == datetime(2026, 5, 1, 14, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2x", "-2h", "2026-13-01", "9" * 20 + "d"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time"):
        moment(text)


def test_future_is_refused() -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(typer.BadParameter, match="is in the future"):
        moment(tomorrow.isoformat())
