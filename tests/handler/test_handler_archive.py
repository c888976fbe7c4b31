"""The archive holds what a worker needs, and another model needs no change of ours."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from handler.archive import build_archive
from handler.create_model import create_state_dict
from handler.errors import ModelError
from handler.events import EventShape
from handler.settings import HandlerSettings, SettingsError, load_settings, read_state_token

ROOT = Path(__file__).parents[2]
OWN_NETWORK = "from torch import nn\n\n\ndef build(features):\n    return nn.Linear(features, 1)\n"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "any-name.pt"
    torch.save(create_state_dict(), path)
    return path


@pytest.fixture
def own_model(tmp_path: Path) -> list[str]:
    """Arguments for a network of five features, in a module of its own."""
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    torch.save(torch.nn.Linear(5, 1).state_dict(), tmp_path / "own.pt")
    config = {"handler": {"factory": "own_network:build", "features": 5, "weights": "own.pt"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"minWorkers": 1, **config}))
    return [
        "--weights", str(tmp_path / "own.pt"),
        "--config", str(tmp_path / "own.yaml"),
        "--include", str(tmp_path / "own_network.py"),
        "--output", str(tmp_path / "store" / "scorer.mar"),
    ]  # fmt: skip


def run_archive(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "handler.archive", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_archive_holds_what_a_worker_needs_and_no_more(tmp_path: Path, weights: Path) -> None:
    with zipfile.ZipFile(build_archive(tmp_path / "scorer.mar", weights)) as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    assert {"scorer_handler.py", "any-name.pt", "handler/pipeline.py"} <= names
    assert "model-config.yaml" in names
    assert not any("archive" in name or "create_model" in name for name in names)
    assert manifest["model"]["modelName"] == "scorer"
    assert manifest["model"]["handler"] == "scorer_handler.py"
    assert manifest["model"]["configFile"] == "model-config.yaml"


def test_the_archive_imports_without_the_repository(tmp_path: Path, weights: Path) -> None:
    with zipfile.ZipFile(build_archive(tmp_path / "scorer.mar", weights)) as archive:
        archive.extractall(tmp_path / "unpacked")
    where = "import scorer_handler, handler.pipeline; print(handler.pipeline.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path / "unpacked", capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert str(tmp_path) in done.stdout


def test_another_network_and_feature_count_need_no_change_of_the_handler(
    tmp_path: Path, own_model: list[str]
) -> None:
    done = run_archive(*own_model)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "store" / "scorer.mar") as archive:
        assert {"own_network.py", "own.pt"} <= set(archive.namelist())


def test_weights_that_do_not_fit_are_found_before_packing(
    own_model: list[str], tmp_path: Path
) -> None:
    torch.save(torch.nn.Linear(4, 1).state_dict(), tmp_path / "own.pt")
    done = run_archive(*own_model)
    assert done.returncode == 1
    assert "does not fit" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_missing_weights_say_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"python -m handler\.create_model writes it"):
        build_archive()
    with pytest.raises(ModelError, match=r"none\.pt is not there: name the files .*WEIGHTS="):
        build_archive(weights=Path("none.pt"))


def test_the_shipped_yaml_says_what_the_defaults_say() -> None:
    shipped = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
    assert load_settings(shipped, {}) == HandlerSettings()


def test_the_environment_wins_over_the_yaml() -> None:
    yaml_section = {"handler": {"state_url": "http://a", "max_events": 7}}
    settings = load_settings(yaml_section, {"HANDLER_STATE_URL": "http://b", "OTHER": "x"})
    assert (settings.state_url, settings.max_events) == ("http://b", 7)


def test_features_are_a_count_or_names() -> None:
    counted = load_settings({"handler": {"features": 2}}, {})
    named = load_settings({"handler": {"features": ["age", "amount"]}}, {})
    assert (counted.feature_count, counted.feature_names) == (2, ())
    assert (named.feature_count, named.feature_names) == (2, ("age", "amount"))


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ((), "2 numbers"),
        (("age", "amount"), "2 numbers (age, amount)"),
        (("age",), "1 number (age)"),
        (tuple(map(str, range(21))), f"21 numbers ({', '.join(map(str, range(20)))}, …)"),
    ],
)
def test_an_event_s_shape_says_what_it_expects(names: tuple[str, ...], shown: str) -> None:
    shape = EventShape(len(names) or 2, 1, 1, names)
    assert shape.expected() == shown
    assert shape.place(0) == (f"features[0] ({names[0]})" if names else "features[0]")


@pytest.mark.parametrize(
    ("section", "environment", "named"),
    [
        ({"feautres": 4}, {}, "feautres"),
        ({"features": 0}, {}, "features"),
        ({"features": "many"}, {}, "features"),
        ({"features": []}, {}, "features"),
        ({"features": ["age", 7]}, {}, r"features\[1\]"),
        ({"features": ["age", "two\nlines"]}, {}, r"features"),
        ({"features": ["age", "amount", "age"]}, {}, "'age' more than once"),
        ("text", {}, "handler"),
        ({}, {"HANDLER_STATEURL": "x"}, "HANDLER_STATEURL.*HANDLER_STATE_URL"),
        ({}, {"HANDLER_MAX_EVENTS": "-1"}, "max_events"),
    ],
)
def test_a_wrong_setting_is_named(section: object, environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load_settings({"handler": section}, environment)


def test_the_state_service_s_token_is_a_setting_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token\n")
    assert read_state_token(HandlerSettings()) is None
    assert read_state_token(HandlerSettings(state_token="a-token")) == "a-token"
    assert read_state_token(HandlerSettings(state_token_file=str(file))) == "a-token"
    both = HandlerSettings(state_token="a-token", state_token_file=str(file))
    with pytest.raises(SettingsError, match="not both"):
        read_state_token(both)
    assert "a-token" not in repr(both)
    with pytest.raises(SettingsError, match="No such file"):
        read_state_token(HandlerSettings(state_token_file=str(tmp_path / "none")))


@pytest.mark.parametrize("token", ["", "a\r\nX-Evil: 1", "tökén", "a\n"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingsError, match="state_token") as caught:
        read_state_token(HandlerSettings(state_token=token))
    assert not token or token not in str(caught.value)
