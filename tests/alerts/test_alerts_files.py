"""What promtool says of the configurations, the rules and their unit tests."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.observe.observe_support import PROMETHEUS, dashboard_queries
from tests.readme import ROOT, examples


@pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
def test_the_configuration_is_valid_and_finds_the_rules(
    promtool: Callable[..., str], name: str
) -> None:
    assert "1 rule files found" in promtool("check", "config", str(PROMETHEUS / name))


def test_the_documented_command_starts_a_prometheus(tmp_path: Path) -> None:
    (command,) = [
        step.command
        for step in examples((ROOT / "docs" / "operate.md").read_text())
        if step.command.startswith("prometheus ")
    ]
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    words = [*shlex.split(command), "--web.listen-address=127.0.0.1:0"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        said = next((line for line in running.stderr if "ready to receive" in line), "")
        running.terminate()
    assert said
    assert (tmp_path / "var" / "prometheus" / "wal").is_dir()


def test_the_rules_are_clean(promtool: Callable[..., str]) -> None:
    promtool("check", "rules", "--lint-fatal", str(PROMETHEUS / "rules" / "medianserve.rules.yml"))


def test_each_alert_is_fired_by_the_fault_it_is_for() -> None:
    rules = (PROMETHEUS / "rules" / "medianserve.rules.yml").read_text()
    provoked = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(alerts) >= 18
    assert [alert for alert in alerts if f'"{alert}"' not in provoked] == []


def test_the_rules_pass_their_unit_tests(promtool: Callable[..., str]) -> None:
    promtool("test", "rules", str(PROMETHEUS / "tests" / "medianserve.test.yml"))


def test_prometheus_understands_the_dashboard_s_queries(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    queries = enumerate(dashboard_queries())
    rules = [{"record": f"query:{number}", "expr": query} for number, query in queries]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))
