"""Where a stack listens: read from one place, moved together, refused in one sentence."""

import socket
from pathlib import Path

import pytest

from stack.addresses import Addresses, Listener, StackError
from stack.files import read_property
from stack.ports import check_free
from stack.torchserve import java_command

CONFIG = Path(__file__).parents[2] / "config.properties"


def test_the_default_ports_are_those_of_config_properties() -> None:
    addresses = Addresses.load(CONFIG, {})
    assert addresses.inference.url == "http://127.0.0.1:8080"
    assert addresses.management.url == "http://127.0.0.1:8081"
    assert addresses.metrics.url == "http://127.0.0.1:8082"
    assert (addresses.grpc_inference.port, addresses.grpc_management.port) == (7070, 7071)
    assert addresses.state.url == "http://127.0.0.1:8090"


def test_an_offset_moves_every_port_and_tells_both_processes() -> None:
    environment = Addresses.load(CONFIG, {}, 100).environment()
    assert environment == {
        "TS_INFERENCE_ADDRESS": "http://127.0.0.1:8180",
        "TS_MANAGEMENT_ADDRESS": "http://127.0.0.1:8181",
        "TS_METRICS_ADDRESS": "http://127.0.0.1:8182",
        "TS_GRPC_INFERENCE_PORT": "7170",
        "TS_GRPC_MANAGEMENT_PORT": "7171",
        "STATE_HOST": "127.0.0.1",
        "STATE_PORT": "8190",
        "STATE_TORCHSERVE_URL": "http://127.0.0.1:8180",
        "STATE_MANAGEMENT_URL": "http://127.0.0.1:8181",
    }


def test_the_environment_wins_over_the_file() -> None:
    given = {"TS_INFERENCE_ADDRESS": "http://127.0.0.1:1234", "STATE_PORT": "1235"}
    addresses = Addresses.load(CONFIG, given, 1)
    assert (addresses.inference.port, addresses.state.port) == (1235, 1236)


def test_a_kubernetes_service_named_state_is_no_port() -> None:
    injected = {"STATE_PORT": "tcp://10.0.0.1:8090", "STATE_SERVICE_HOST": "10.0.0.1"}
    assert Addresses.load(CONFIG, injected).state.port == 8090


def test_an_ipv6_address_is_written_as_urls_want_it() -> None:
    assert Listener("state service", "::1", 8090).url == "http://[::1]:8090"


@pytest.mark.parametrize(
    ("environment", "offset", "named"),
    [
        ({"STATE_PORT": "eighty"}, 0, "eighty"),
        ({"STATE_PORT": "70000"}, 0, "70000"),
        ({}, 60_000, "60000"),
        ({}, -9_000, "-9000"),
        ({"TS_INFERENCE_ADDRESS": "localhost"}, 0, "inference_address"),
        ({"TS_INFERENCE_ADDRESS": "http://127.0.0.1:99999"}, 0, "inference_address"),
    ],
)
def test_what_is_no_port_is_refused_by_name(
    environment: dict[str, str], offset: int, named: str
) -> None:
    with pytest.raises(StackError, match=named):
        Addresses.load(CONFIG, environment, offset)


def test_a_port_in_use_is_found_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        addresses = Addresses.load(CONFIG, {"STATE_PORT": str(port)}, 0)
        with pytest.raises(StackError, match=r"port \d+ \(.*\) cannot be used"):
            check_free(addresses)


def test_the_last_line_of_a_property_wins_as_in_java(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text("# a=0\na=1\n b = two=2 \na=3\n")
    assert read_property(config, "a") == "3"
    assert read_property(config, "b") == "two=2"
    assert read_property(config, "c") is None


def test_the_jvm_gets_the_options_of_config_properties(tmp_path: Path) -> None:
    command = java_command(CONFIG, CONFIG.with_name("log4j2.xml"), tmp_path)
    assert "-XX:MaxRAMPercentage=25" in command
    assert f"-Djava.io.tmpdir={tmp_path}" in command
    assert command[command.index("--ts-config-file") + 1] == str(CONFIG)
