"""The settings of logs and traces."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from offhook.settings.faults import like


class WatchSettings(BaseSettings):
    """What processes write about themselves. A part of `Settings`."""

    log_format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description="how log lines are written; auto: text on a terminal, else JSON",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="the lowest level of Offhook's own log lines; debug adds one for each event",
    )
    log_mask_numbers: bool = Field(
        default=False, description="whether messages in the log hide phone numbers"
    )
    traces_url: (
        Annotated[str, like(r"https?://[^\s?#]+", "a URL such as http://127.0.0.1:4318")] | None
    ) = Field(
        default=None,
        repr=False,
        description="the OpenTelemetry collector for traces (OTLP over HTTP); none if not set",
    )
    traces_share: float = Field(
        default=1.0, gt=0, le=1, description="the share of events to trace, such as 0.01"
    )
