"""The live page without script: the same numbers as plain tables. Pure.

Whatever is shown goes through `escape`: user ids are anything that somebody sent.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from state_service.overview import Overview
from state_service.ranking import Ranked
from state_service.user_view import UserView

_NOTHING = "-"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>medianserve</title>
<link rel="icon" href="dashboard/icon.svg">
<link rel="stylesheet" href="dashboard/style.css">
</head>
<body class="plain">
<header class="top">
<h1>medianserve</h1>
<nav aria-label="Pages"><a href="./">Live page</a> <a href="docs">API docs</a></nav>
</header>
<main>
{conditions}
<form method="get" action="overview">
<label for="user_id">User id</label>
<input id="user_id" name="user_id" value="{asked}" dir="auto" autocomplete="off">
<button>Look up</button>
</form>
<div class="tables">
{tables}
</div>
<p class="note">As of {time}. <a href="{again}">Load it again</a></p>
</main>
</body>
</html>
"""


def render_overview(overview: Overview, user: UserView | None = None) -> str:
    """Return the page."""
    tables = [_user_table(user)] if user is not None else []
    for caption, rows in groups(overview):
        tables.append(_table(caption, rows))
    if overview.rankings is not None:
        rankings = overview.rankings
        tables.append(_ranking("Most active users", rankings.most_active))
        tables.append(_ranking("Highest medians", rankings.highest_medians))
        tables.append(_ranking("Lowest medians", rankings.lowest_medians))
    return _PAGE.format(
        again=escape(
            "overview" if user is None else f"overview?{urlencode({'user_id': user.user_id})}"
        ),
        conditions="\n".join(
            f'<p class="condition {condition.level}">{escape(condition.sentence)}</p>'
            for condition in overview.conditions
        ),
        asked=escape("" if user is None else user.user_id),
        tables="\n".join(tables),
        time=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(overview.time)),
    )


def groups(overview: Overview) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what is shown as (caption, rows of a name and a value)."""
    stats, rates, torchserve = overview.stats, overview.rates, overview.torchserve
    snapshot, spool = stats["snapshot"], stats["spool"]
    age = None if snapshot["last_at"] is None else max(0.0, overview.time - snapshot["last_at"])
    return [
        (
            "Now",
            [
                ("Events a second", number(rates.events_per_second)),
                ("Requests a second", number(rates.requests_per_second)),
                ("Ingest latency", seconds(rates.ingest_latency_seconds)),
                ("Users", number(stats["users"])),
                ("Live events", number(stats["live_events"])),
                ("Median of all users' medians", score(stats["median_of_medians"]["median"])),
                ("Events held, the past included", number(stats["held_events"])),
                *_clock_rows(stats["event_clock"]),
            ],
        ),
        (
            "Since the start",
            [
                ("Requests", number(stats["ingest_requests"])),
                ("Events", number(stats["events_processed"])),
                ("Accepted", number(stats["accepted"])),
                ("Late", number(stats["late"])),
                ("Future", number(stats["future"])),
                ("Duplicates", number(stats["duplicates"])),
                ("Malformed", number(stats["skipped"])),
                ("Medians asked for", number(stats["median_requests"])),
                ("Refused requests", number(stats["requests_refused"])),
                ("Mean ingest latency", seconds(stats["avg_ingest_latency_seconds"])),
                ("Uptime", seconds(stats["uptime_seconds"])),
            ],
        ),
        (
            "Durability",
            [
                ("Mode", stats["durability"]["mode"]),
                ("Journal rows", number(stats["journal"]["rows"])),
                ("Journal", stats["journal"]["error"] or "written"),
                ("Last snapshot", "none yet" if age is None else f"{seconds(age)} ago"),
                ("Snapshots", snapshot["error"] or "written"),
                ("Database", size(snapshot["database_bytes"])),
                ("Requests in the spool", number(spool["batches"])),
                ("Size of the spool", size(spool["bytes"])),
                ("Oldest in the spool", seconds(spool["oldest_seconds"])),
            ],
        ),
        (
            "TorchServe",
            [
                ("State", torchserve.state.replace("_", " ")),
                ("Workers ready", _or_dash(torchserve.workers_ready)),
                ("Workers", _or_dash(torchserve.workers)),
                ("Queue", _or_dash(torchserve.queue_pending)),
                ("Model version", torchserve.version or _NOTHING),
            ],
        ),
    ]


def number(value: float) -> str:
    """Return a number with its thousands apart; small ones keep a digit.

    >>> number(1234567), number(0.5), number(0)
    ('1,234,567', '0.5', '0')
    """
    return f"{value:,.1f}" if 0 < value < 10 and value != int(value) else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Return a duration in the unit that suits it.

    >>> seconds(0.0042), seconds(12.3), seconds(4000), seconds(None)
    ('4.2 ms', '12.3 s', '1 h 6 min', '-')
    """
    if value is None:
        return _NOTHING
    if value == 0:
        return "0 s"
    if value < 1:
        return f"{value * 1000:.1f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes = int(value // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(value: float) -> str:
    """Return a size in the unit that suits it.

    >>> size(512), size(409600)
    ('512 B', '400.0 KiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def score(value: float | None) -> str:
    """Return a score as the page shows it: four digits.

    >>> score(0.123456), score(None)
    ('0.1235', '-')
    """
    return _NOTHING if value is None or math.isnan(value) else f"{value:.4g}"


def _clock_rows(clock: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if clock is None:
        return []
    told = clock["time"]
    return [
        ("The replay's time", _NOTHING if told is None else f"{told:,.3f}"),
        ("Behind the server's", seconds(clock["behind_seconds"])),
    ]


def _or_dash(value: int | None) -> str:
    return _NOTHING if value is None else number(value)


def _user_table(user: UserView) -> str:
    rows = [
        ("Median", score(user.median)),
        ("Scores in the window", number(user.count)),
        ("5 % to 95 %", f"{score(user.low)} to {score(user.high)}"),
        ("Least and greatest", f"{score(user.min)} to {score(user.max)}"),
    ]
    return _table(f"User {_id(user.user_id)}", rows)


def _table(caption: str, rows: Iterable[tuple[str, Any]]) -> str:
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in rows
    )
    return f"<table>\n<caption>{caption}</caption>\n{lines}\n</table>"


def _id(user_id: str) -> str:
    """Return a user id as HTML: apart from the text around it, whose order it could turn, and seen.

    >>> _id("<b>"), _id(" ")
    ('<bdi>&lt;b&gt;</bdi>', '<bdi>(blank, 1 character)</bdi>')
    """
    seen = any(character.isprintable() and not character.isspace() for character in user_id)
    blank = f"(blank, {len(user_id)} character{'s' if len(user_id) > 1 else ''})"
    return f"<bdi>{escape(user_id if seen else blank)}</bdi>"


def _ranking(caption: str, users: Sequence[Ranked]) -> str:
    lines = "\n".join(
        f'<tr><th scope="row">{_id(user.user_id)}</th>'
        f"<td>{score(user.median)}</td><td>{number(user.count)}</td></tr>"
        for user in users
    )
    return (
        f"<table>\n<caption>{escape(caption)}</caption>\n"
        '<tr><th scope="col">User</th><th scope="col">Median</th><th scope="col">Scores</th></tr>\n'
        f"{lines}\n</table>"
    )
