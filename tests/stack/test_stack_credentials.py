"""Tokens and keys reach those who need them, and are read where they are now."""

import json
from pathlib import Path

import pytest

from stack.credentials import KEY_FILE, generator_variables, handler_variables, key_header
from stack.torchserve import java_environment

HERE = Path("/here")
CONFIG = Path(__file__).parents[2] / "config.properties"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / KEY_FILE
    keys = {"management": {"key": "m"}, "inference": {"key": "i"}, "API": {"key": "a"}}
    file.write_text(json.dumps(keys))
    return file


def test_the_handler_gets_the_write_token_unless_it_has_its_own() -> None:
    for given, handed_on in [
        ({}, {}),
        ({"STATE_READ_TOKEN": "r"}, {}),
        ({"STATE_WRITE_TOKEN": "w"}, {"HANDLER_STATE_TOKEN": "w"}),
        ({"STATE_WRITE_TOKEN_FILE": "w"}, {"HANDLER_STATE_TOKEN_FILE": "/here/w"}),
        ({"STATE_WRITE_TOKEN_FILE": "/run/w"}, {"HANDLER_STATE_TOKEN_FILE": "/run/w"}),
        (
            {"STATE_WRITE_TOKEN": "w", "HANDLER_STATE_TOKEN_FILE": "h"},
            {"HANDLER_STATE_TOKEN_FILE": "/here/h"},
        ),
    ]:
        assert handler_variables(given, HERE) == handed_on


def test_the_generator_gets_as_little_as_it_needs(key_file: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    write, both = {"STATE_WRITE_TOKEN": "w"}, {"STATE_WRITE_TOKEN": "w", "STATE_READ_TOKEN": "r"}
    assert generator_variables({}, HERE, none) == {}
    assert generator_variables(both, HERE, none) == {"GENERATOR_STATE_TOKEN": "r"}
    assert generator_variables(write, HERE, none) == {"GENERATOR_STATE_TOKEN": "w"}
    assert generator_variables({}, HERE, key_file) == {"GENERATOR_TOKEN": "i"}
    own = {"GENERATOR_TOKEN_FILE": "t", "GENERATOR_STATE_TOKEN": "s", **both}
    assert generator_variables(own, HERE, key_file) == {"GENERATOR_STATE_TOKEN": "s"}


def test_a_key_is_what_the_file_holds_now(key_file: Path) -> None:
    assert key_header(key_file, "inference") == {"Authorization": "Bearer i"}
    assert key_header(key_file, "management") == {"Authorization": "Bearer m"}
    key_file.write_text(key_file.read_text().replace('"i"', '"j"'))
    assert key_header(key_file, "inference") == {"Authorization": "Bearer j"}
    for half_written in ("", '{"inference": {'):
        key_file.write_text(half_written)
        assert key_header(key_file, "inference") == {}
    key_file.unlink()
    assert key_header(key_file, "inference") == {}


def test_torchserve_finds_its_files_wherever_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"STATE_WRITE_TOKEN_FILE": "secrets/write"}
    environment = java_environment(given, CONFIG, tmp_path)
    assert environment["TS_MODEL_STORE"] == str(tmp_path / "model_store")
    assert environment["HANDLER_STATE_TOKEN_FILE"] == str(tmp_path / "secrets" / "write")
    assert (
        java_environment({"TS_MODEL_STORE": "/store"}, CONFIG, tmp_path)["TS_MODEL_STORE"]
        == "/store"
    )
