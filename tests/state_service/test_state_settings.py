"""Settings: one table, two ways to give each, and a sentence for every mistake."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from handler.settings import HandlerSettings
from handler.settings import SettingsError as HandlerSettingsError
from handler.settings import load_settings as load_handler_settings
from state_service.app import create_app
from state_service.settings import (
    ENVIRONMENT_PREFIX,
    Setting,
    Settings,
    SettingsError,
    load_settings,
    settings_table,
)
from state_service.torchserve_addresses import check_addresses
from tests.state_service.state_support import REPOSITORY, spawn

TABLE = settings_table()


def _other_value(row: Setting) -> Any:
    """Return a legal value that is not the default."""
    if row.choices:
        return next(choice for choice in row.choices if choice != row.default)
    if row.default is None:
        return "x"
    return row.default + "x" if isinstance(row.default, str) else row.default + 1


def test_every_setting_stands_in_the_table_with_a_default_and_a_sentence() -> None:
    assert [row.name for row in TABLE] == list(Settings.__struct_fields__)
    assert all(row.default == getattr(Settings(), row.name) for row in TABLE)
    assert all(len(row.description) > 10 for row in TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_setting_can_be_given_as_variable_and_as_flag_and_the_flag_wins(row: Setting) -> None:
    value = _other_value(row)
    environment = {row.environment_name: str(value)}
    assert getattr(load_settings([], environment), row.name) == value
    assert getattr(load_settings([row.flag, str(value)], {}), row.name) == value
    both = load_settings([row.flag, str(value)], {row.environment_name: str(row.default)})
    assert getattr(both, row.name) == value


def test_nothing_given_is_every_default_and_other_programs_variables_are_ignored() -> None:
    assert load_settings([], {"PATH": "/bin", "ESTATE_PORT": "1", "state_port": "2"}) == Settings()


# What Kubernetes 1.31 gives a container whose namespace has Services of these names.
INJECTED = {
    "{}_SERVICE_HOST": "10.96.0.7",
    "{}_SERVICE_PORT": "8090",
    "{}_SERVICE_PORT_HTTP": "8090",
    "{}_PORT": "tcp://10.96.0.7:8090",
    "{}_PORT_8090_TCP": "tcp://10.96.0.7:8090",
    "{}_PORT_8090_TCP_PROTO": "tcp",
    "{}_PORT_8090_TCP_PORT": "8090",
    "{}_PORT_8090_TCP_ADDR": "10.96.0.7",
    "{}_PORT_53_UDP": "udp://[fd00::7]:53",
    "{}_PORT_53_UDP_ADDR": "fd00::7",
}


@pytest.mark.parametrize("service", ["STATE", "STATE_SERVICE", "STATE_2"])
def test_what_kubernetes_says_of_services_is_no_setting(service: str) -> None:
    injected = {name.format(service): value for name, value in INJECTED.items()}
    assert load_settings([], injected) == Settings()
    assert load_settings(["--port", "1"], injected).port == 1
    of_handler = {name.replace("STATE", "HANDLER"): value for name, value in injected.items()}
    assert load_handler_settings({}, of_handler) == HandlerSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STATE_SERVICE_HOST", "localhost"),  # Kubernetes gives addresses
        ("STATE_SERVICE_HOSTS", "10.96.0.7"),
        ("STATE_SERVICE_PORT", "eighty"),
        ("STATE_PORTS", "tcp://10.96.0.7:8090"),
        ("STATE_PORT_8090_TCP", "10.96.0.7:8090"),
        ("STATE_HTTP_PORT", "8090"),
        ("STATE_PORT_8090_TCP_PROTO", "http"),
    ],
)
def test_what_only_looks_a_little_like_it_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting {name}:"):
        load_settings([], {name: value})
    with pytest.raises(HandlerSettingsError, match="unknown setting HANDLER"):
        load_handler_settings({}, {name.replace("STATE", "HANDLER"): value})


@pytest.mark.parametrize("name", ["torchserve_url", "torchserve_public_url", "management_url"])
@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("localhost:8080", "write http://localhost:8080"),
        ("torchserve", "write http://torchserve"),
        ("ftp://localhost:8080", "write an address such as http://localhost:8080"),
        ("http://", "write an address such as http://localhost:8080"),
        ("http://:8080", "write an address such as http://localhost:8080"),
        ("http://local host:8080", "write an address such as http://localhost:8080"),
        ("http://localhost:80800", "write an address such as http://localhost:8080"),
        ("http://[::1:8080", "write an address such as http://localhost:8080"),
        ("http://localhost:8080/?a=b", "leave out what follows ?"),
    ],
)
async def test_what_is_no_address_of_torchserve_is_refused_at_the_start(
    tmp_path: Path, name: str, address: str, sentence: str
) -> None:
    given: dict[str, Any] = {"database": str(tmp_path / "state.db"), name: address}
    with pytest.raises(SettingsError) as caught:
        await create_app(Settings(**given))
    assert str(caught.value).startswith(f"STATE_{name.upper()} ({name}): ")
    assert str(caught.value).endswith(sentence)


@pytest.mark.parametrize(
    "address", ["", "http://localhost:8080", "https://s.test/", "http://[::1]:8080", "http://x/a/b"]
)
def test_an_address_of_torchserve_may_have_a_path_or_be_empty(address: str) -> None:
    check_addresses(Settings(torchserve_url=address, management_url=address))


@pytest.mark.parametrize("name", ["STATE_PROT", "STATE_", "STATE_PORT_", "STATE_port"])
def test_an_unknown_variable_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting {name}.*--help"):
        load_settings([], {name: "1", "STATE_PORT": "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "eighty"),
        ("port", "65536"),
        ("port", "-1"),
        ("window_seconds", "0"),
        ("window_seconds", "-5"),
        ("window_seconds", "nan"),
        ("window_seconds", "inf"),
        ("window_seconds", "604801"),
        ("window_seconds", ""),
        ("max_future_seconds", "-0.1"),
        ("history_seconds", "nan"),
        ("clock", "moon"),
        ("snapshot_interval_seconds", "0"),
        ("max_body_bytes", "0"),
        ("max_live_events", "1.5"),
        ("log_level", "INFO"),
    ],
)
def test_a_bad_value_is_refused_and_its_setting_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings([], {ENVIRONMENT_PREFIX + name.upper(): value})


def test_help_lists_every_setting_with_its_variable_and_default() -> None:
    command = [sys.executable, "-m", "state_service", "--help"]
    text = subprocess.run(
        command, cwd=REPOSITORY, env={"COLUMNS": "1000"}, capture_output=True, text=True, check=True
    ).stdout
    text = " ".join(text.split())
    for row in TABLE:
        choices = f" ({', '.join(row.choices)})" if row.choices else ""
        assert f"{row.flag} " in text
        assert f"{row.description}{choices} [{row.environment_name}, {row.default}]" in text


@pytest.mark.parametrize(
    ("variable", "value"), [("STATE_WINDOW_SECONDS", "minus five"), ("STATE_WINDOWS_SECONDS", "5")]
)
async def test_the_command_says_in_one_sentence_what_is_wrong_with_a_setting(
    variable: str, value: str
) -> None:
    process = await spawn("--port", "0", environment={variable: value})
    stdout, stderr = await process.communicate()
    assert process.returncode == 1
    assert stdout == b""
    assert stderr.decode().startswith("error: ")
    assert stderr.count(b"\n") == 1
    assert "window" in stderr.decode().lower()
