"""Write docs/compatibility.md from the tables that the tests hold: `python -m …document`."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.compatibility.cases import (
    ALLOWED,
    DESCRIBED,
    IN_ITS_OWN_WORDS,
    INFERENCE,
    KSERVE,
    MACHINE_METRICS,
    MANAGEMENT,
    METRIC_TYPES,
    METRICS,
    SCALING,
    VERSIONS,
    Case,
    Facts,
)
from tests.compatibility.tools import CURL

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"

_START = """# What those who know TorchServe find here

Written by `python -m tests.compatibility.document` from the tables in `tests/compatibility`. The
tests there ask each question twice: a TorchServe that its own launcher started with its defaults,
and the one that is started here. Both are TorchServe 0.12; the plain one is asked with its keys,
and its model answers what reached it.

## What is different

| to | request | plain | here | why |
|---|---|---|---|---|
"""
_DESCRIBED = """
A model's description, `GET :8081/models/scorer`, has the same fields in both. These have other
values here, by `handler/model-config.yaml`:

| field | plain | here | |
|---|---|---|---|
"""
_METRICS = """
At `/metrics` with `metrics_mode=prometheus`, a plain one has
{only}
besides; here `medianserve_…` are ([metrics.md](metrics.md)). Both have, of the same types,
{same}.

## What is the same

To the letter; a prediction is the model's own answer.
"""
_KEYS = """
### Keys, where token authorization is on

`TS_DISABLE_TOKEN_AUTHORIZATION=false`. What is not open answers 400, `Token Authorization failed`.

| key | inference | management | metrics |
|---|---|---|---|
"""
_TOOLS = """
## Plain tools

What each sends is counted exactly once, by the median's count and by `events_processed` in
`/stats`: Python's requests (JSON, chunks, multipart), httpx, aiohttp, urllib3 and urllib, Node's
fetch, `ab -k`, locust (`tests/compatibility/locustfile.py` is one to begin with), and curl:

| `curl :8080/predictions/scorer` and | answers | |
|---|---|---|
"""
_LIMITS = """
## Known limits of TorchServe

- It leaves a connection open that the client wants closed: `Connection: close` and HTTP/1.0 are
  ignored. A client that waits for the connection's end waits for ever, such as `ab` without `-k`.
- It speaks HTTP/1.1 alone: no HTTP/2 without TLS (`curl --http2-prior-knowledge`).
- Numbers that it cannot read in a query, such as `min_worker=x`, are taken for the default.

A proxy in front, which TLS needs anyway, closes what shall be closed and speaks HTTP/2.
"""


def page() -> str:
    """Return the whole page."""
    groups = {
        "Management, :8081": [*MANAGEMENT, *SCALING],
        "Management with the model API on, `TS_ENABLE_MODEL_API=true`": VERSIONS,
        "Inference, :8080": INFERENCE,
        "Inference as KServe asks for it, :8080": KSERVE,
        "Metrics, :8082": METRICS,
    }
    return "".join([
        _START,
        *(row for cases in groups.values() for row in _differences(cases)),
        _DESCRIBED,
        *_described(),
        _METRICS.format(same=_names(METRIC_TYPES), only=_names(sorted(MACHINE_METRICS))),
        *(line for title, cases in groups.items() for line in _same(title, cases)),
        _KEYS,
        *_keys(),
        _TOOLS,
        *_tools(),
        _LIMITS,
    ])  # fmt: skip


def _differences(cases: Iterable[Case]) -> Iterator[str]:
    for case in cases:
        if case.ours is not None and case.why != IN_ITS_OWN_WORDS:
            answers = f"{_fact(case.plain)} | {_fact(case.ours)}"
            yield f"| {case.what} | {_request(case)} | {answers} | {case.why} |\n"


def _same(title: str, cases: Iterable[Case]) -> Iterator[str]:
    yield f"\n### {title}\n\n| to | request | answer |\n|---|---|---|\n"
    for case in cases:
        if case.ours is None or case.why == IN_ITS_OWN_WORDS:
            answer = _fact(case.plain) if case.ours is None else f"{case.plain.status}"
            yield f"| {case.what} | {_request(case)} | {answer} |\n"


def _request(case: Case) -> str:
    return f"`{case.question.method} {case.question.path}`"


def _fact(facts: Facts) -> str:
    text = facts.holds.replace('\\"', '"')
    return f"{facts.status} `{text}`" if text else f"{facts.status}, empty"


def _keys() -> Iterator[str]:
    for key, ports in ALLOWED.items():
        opened = [
            "open" if port in ports else "" for port in ("inference", "management", "metrics")
        ]
        yield f"| {key} | {' | '.join(opened)} |\n"


def _described() -> Iterator[str]:
    for field, (plain, ours, why) in DESCRIBED.items():
        yield f"| `{field}` | {_value(plain)} | {_value(ours)} | {why} |\n"


def _value(value: object) -> str:
    return f"`{json.dumps(value)}`"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _tools() -> Iterator[str]:
    for command in CURL:
        after = f"`{command.after}` after the address, " if command.after else ""
        yield f"| {after}`{command.arguments}` | {command.status} | {command.why} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
