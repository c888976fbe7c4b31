"""The profile `observe`: Prometheus finds the metrics and the rules. Grafana is not started."""

import re
from typing import TYPE_CHECKING, Any

from tests.readme import ROOT

if TYPE_CHECKING:
    from tests.compose.conftest import ComposeStack

RULES = ROOT / "deploy" / "prometheus" / "rules" / "medianserve.rules.yml"


def test_prometheus_scrapes_both_programs_and_judges_every_alert(stack: "ComposeStack") -> None:
    configuration = stack.folder / "deploy" / "prometheus" / "prometheus.yml"
    configuration.write_text(configuration.read_text().replace("interval: 15s", "interval: 1s"))
    stack.up()
    stack.compose("up", "--detach", "prometheus")  # to name it is to name its profile

    def health() -> dict[str, Any]:
        targets = (stack.prometheus("/targets") or {}).get("activeTargets", [])
        return {target["labels"]["job"]: target["health"] for target in targets}

    both = {"medianserve-state": "up", "medianserve-torchserve": "up"}
    stack.wait_until("scraped", lambda: health() == both)
    heartbeat = "/query?query=medianserve_handler_heartbeat_timestamp_seconds"
    stack.wait_until("told by the worker", lambda: stack.prometheus(heartbeat)["result"])
    judged = [
        (rule["name"], rule["health"])
        for group in stack.prometheus("/rules")["groups"]
        for rule in group["rules"]
    ]
    written = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert sorted(judged) == sorted((name, "ok") for name in written)
    stack.compose("rm", "--stop", "--force", "prometheus")
