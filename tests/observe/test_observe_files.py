"""The rules, the dashboard and the profile fit together, and the documents explain them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.addresses import STATE_PORT
from stack.files import read_property
from tests.observe.observe_support import (
    GRAFANA,
    OPERATE,
    PROMETHEUS,
    ROOT,
    alerts,
    dashboard,
    dashboard_queries,
    metrics_in,
)

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OBSERVERS = ("prometheus", "grafana")


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", alerts())
def test_every_alert_says_what_it_means_and_where_to_read_on(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert "$labels.instance" in rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/operate.md#{name.lower()}"
    section = OPERATE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    for part in ("Means", "Look at", "Do"):
        assert re.search(rf"\*\*{part}\*\*", section, re.IGNORECASE), part


def test_every_section_about_an_alert_is_about_one_that_there_is() -> None:
    assert set(re.findall(r"^## (Medianserve\w+)$", OPERATE, re.MULTILINE)) == set(alerts())


def test_every_alert_is_seen_to_fire_and_not_to_fire_by_a_unit_test() -> None:
    fires: set[str] = set()
    is_silent: set[str] = set()
    for case in _read(PROMETHEUS / "tests" / "medianserve.test.yml")["tests"]:
        for check in case["promql_expr_test"]:
            name = re.search(r'alertname="(\w+)"', check["expr"])
            assert name is not None
            (fires if check.get("exp_samples") else is_silent).add(name[1])
    assert fires == is_silent == set(alerts())


def test_both_scrape_configurations_differ_in_their_targets_alone() -> None:
    containers, local = _read(PROMETHEUS / "prometheus.yml"), _read(PROMETHEUS / "local.yml")
    targets = []
    for configuration in (containers, local):
        for job in configuration["scrape_configs"]:
            (static,) = job.pop("static_configs")
            (target,) = static["targets"]
            targets.append((job["job_name"], target))
    assert containers == local
    metrics_port = str(read_property(ROOT / "config.properties", "metrics_address")).rpartition(":")
    assert targets == [
        ("medianserve-state", f"state-service:{STATE_PORT}"),
        ("medianserve-torchserve", f"torchserve:{metrics_port[2]}"),
        ("medianserve-state", f"127.0.0.1:{STATE_PORT}"),
        ("medianserve-torchserve", f"127.0.0.1:{metrics_port[2]}"),
    ]


def test_containers_are_scraped_where_they_listen() -> None:
    environment = COMPOSE["services"]["torchserve"]["environment"]
    assert environment["TS_METRICS_ADDRESS"] == "http://0.0.0.0:8082"
    assert not any("8082" in port for port in COMPOSE["services"]["torchserve"]["ports"])


@pytest.mark.parametrize("service", OBSERVERS)
def test_the_profile_s_containers_are_held_as_tightly_as_the_others(service: str) -> None:
    container, ours = COMPOSE["services"][service], COMPOSE["services"]["state-service"]
    assert container["profiles"] == ["observe"]
    for name in ("read_only", "cap_drop", "security_opt", "logging", "restart"):
        assert container[name] == ours[name], name
    for name in ("mem_limit", "memswap_limit", "cpus", "pids_limit", "user"):
        assert container[name], name
    assert re.search(r":-[\w/]+:v?\d+\.\d+\.\d+\}$", container["image"]), "pinned by tag"
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:") for port in container["ports"])
    assert "env_file" not in container
    for volume in container["volumes"]:
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            assert (ROOT / source).is_dir(), volume
            assert volume.endswith(":ro"), volume
        else:
            assert source in COMPOSE["volumes"], volume
            assert target in ("/prometheus", "/var/lib/grafana")


def test_grafana_finds_its_data_and_its_dashboard() -> None:
    (source,) = _read(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    (provider,) = _read(GRAFANA / "provisioning" / "dashboards" / "medianserve.yml")["providers"]
    assert source["url"] == "http://prometheus:9090"
    mounts = [volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert ["./deploy/grafana/dashboards", provider["options"]["path"]] in mounts
    asked = re.findall(r"'uid': '(\w+)'", str(dashboard()["panels"]))
    assert set(asked) == {source["uid"]}


def test_no_two_panels_share_a_number_or_a_place() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or panel["targets"], panel["title"]


def test_the_dashboard_asks_for_metrics() -> None:
    assert all(metrics_in(query) for query in dashboard_queries())
