"""Ends of logs, as `make run` shows them when something does not start."""

import pytest

from stack.log_lines import readable


def test_a_json_line_is_shown_as_text_without_what_a_terminal_does_not_need() -> None:
    line = '{"event": "gone", "level": "warn", "logger": "x", "timestamp": "t", "exception": ""}'
    assert readable(line) == "warn: gone"


def test_further_fields_and_the_exception_are_shown() -> None:
    line = r'{"reason": "full", "event": "failed", "level": "error", "exception": "Trace\nback"}'
    assert readable(line) == "error: failed (reason: full)\nTrace\nback"


@pytest.mark.parametrize(
    "line", ["error: cannot listen", "", "{", '{"event": 1}', "[1, 2]", '"event"', "17"]
)
def test_anything_else_is_shown_as_it_is(line: str) -> None:
    assert readable(line) == line
