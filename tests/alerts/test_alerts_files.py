"""What promtool says of the configurations, the rules and their unit tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.observe.observe_support import PROMETHEUS, dashboard_queries


@pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
def test_the_configuration_is_valid_and_finds_the_rules(
    promtool: Callable[..., str], name: str
) -> None:
    assert "1 rule files found" in promtool("check", "config", str(PROMETHEUS / name))


def test_the_rules_are_clean(promtool: Callable[..., str]) -> None:
    promtool("check", "rules", "--lint-fatal", str(PROMETHEUS / "rules" / "medianserve.rules.yml"))


def test_the_rules_pass_their_unit_tests(promtool: Callable[..., str]) -> None:
    promtool("test", "rules", str(PROMETHEUS / "tests" / "medianserve.test.yml"))


def test_prometheus_understands_the_dashboard_s_queries(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    queries = enumerate(dashboard_queries())
    rules = [{"record": f"query:{number}", "expr": query} for number, query in queries]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))
