"""What the rules, the dashboard and the documents name."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULES_PATH = PROMETHEUS / "rules" / "medianserve.rules.yml"
DASHBOARD_PATH = GRAFANA / "dashboards" / "medianserve.json"
OPERATE = (ROOT / "docs" / "operate.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()

_WORDS = {"and", "or", "unless", "bool", "by", "on", "time", "Inf"}


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alert rules by name."""
    groups = yaml.safe_load(RULES_PATH.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD_PATH.read_text())
    return found


def dashboard_queries() -> list[str]:
    """Return the panels' queries, the dashboard's variables filled in."""
    queries = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    queries += [item["expr"] for item in dashboard()["annotations"]["list"]]
    return [query.replace("$__rate_interval", "1m").replace("$instance", ".+") for query in queries]


def metrics_in(query: str) -> set[str]:
    """Return the names of the metrics that a PromQL expression asks for.

    >>> sorted(metrics_in('sum by (le) (rate(a_bucket{b="c"}[5m])) / on (d) e > 0.5 and f'))
    ['a_bucket', 'e', 'f']
    """
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*\b(?!\s*\()", bare)
    return {name for name in names if name not in _WORDS}


def metrics_named_in_documents() -> set[str]:
    """Return what docs/metrics.md lists and docs/operate.md mentions."""
    names = set(re.findall(r"`((?:medianserve|process)_\w+)`", OPERATE))
    for line in METRICS.splitlines():
        if not line.startswith("| `"):
            continue
        first, *others = re.findall(r"`(\w+)`", line.split("|")[1])
        names.add(first)
        names |= {first + name if name == "_limit" else name for name in others}
    return names


def names_declared(exposition: str) -> set[str]:
    """Return the metrics that a page in Prometheus' text format declares.

    TorchServe declares those as well that have no value yet.
    """
    return set(re.findall(r"^# TYPE (\S+)", exposition, re.MULTILINE))


def names_shown(exposition: str) -> set[str]:
    """Return those, and the names of all samples."""
    samples = re.findall(r"^([a-zA-Z_:][\w:]*)", exposition, re.MULTILINE)
    return names_declared(exposition) | set(samples)
