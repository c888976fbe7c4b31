"""Nothing is skipped in silence: with `--no-skips`, a skipped test that ought to run fails the run.

A person's machine may lack a tool or a right, and sees at the end which tests wanted it. The
machine that judges a change may not.
"""

import pytest

EXPECTED = ("needs a GPU",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a test was skipped for another reason than those that are expected."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--no-skips") or reporter is None:
        return
    for report in reporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if reason not in EXPECTED:
            reporter.write_line(f"\nerror: {report.nodeid} was skipped: {reason}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
