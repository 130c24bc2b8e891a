"""The words that the scripts in `static/` write: they find them in the page, by these names."""

from offhook_console.languages import LANGUAGES, gettext, spoken
from offhook_console.wording import MONTHS, WEEKDAYS


def script_words() -> dict[str, str]:
    """The words in the language that is spoken."""
    language = LANGUAGES[spoken()]
    return {
        "thousands": language.thousands,
        "decimal": language.decimal,
        "months": gettext(MONTHS),
        "weekdays": gettext(WEEKDAYS),
        "date": gettext("{day} {month}"),
        "dateTime": gettext("{date} {time}"),
        "full": gettext("{weekday} {date}, {time}"),
        "live": gettext("live feed"),
        "redisAway": gettext("Redis does not answer, trying again · {time}"),
        "broken": gettext("live feed broken off, trying again · {time}"),
        "copied": gettext("Copied"),
        "newCall": gettext("1 new call"),
        "newCalls": gettext("{number} new calls"),
    }
