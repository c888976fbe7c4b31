"""Saved weights are taken where they have one meaning; else it is said what to type."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from handler.create_model import create_state_dict
from handler.errors import ModelError
from handler.network import build
from handler.scoring import Scorer, load_scorer

ROOT = Path(__file__).parents[2]
FACTORY = "handler.network:build"
ROWS = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
STATE = create_state_dict(5)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


def trained() -> dict[str, Any]:
    network = build(3)
    network.load_state_dict(STATE)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.zeros(1, 3)).sum().backward()
    optimizer.step()
    return {"optimizer": optimizer.state_dict(), "epoch": 7, "loss": torch.tensor(0.5)}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def scores(path: Path) -> list[float]:
    found: list[float] = load_scorer(FACTORY, 3, path).score(ROWS).tolist()
    return found


@pytest.fixture
def expected(tmp_path: Path) -> list[float]:
    return scores(saved(tmp_path / "plain.pt", STATE))


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": STATE, **trained()},
        {"model_state_dict": STATE, "optimizer_state_dict": trained()["optimizer"]},
        {"model": STATE, "discriminator": {"other.weight": torch.zeros(1)}},
        prefixed("module."),
        prefixed("_orig_mod.module."),
        {"epoch": 1, "state_dict": prefixed("net.")},
        {name: value.double() for name, value in STATE.items()},
    ],
    ids=["checkpoint", "tutorial", "two", "parallel", "compiled", "lightning", "float64"],
)
def test_what_has_one_meaning_is_taken(
    tmp_path: Path, expected: list[float], content: dict[str, Any]
) -> None:
    assert scores(saved(tmp_path / "other.pt", content)) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            {"model": STATE, "ema": STATE},
            r"several .* that fit \(model, ema\): save the one",
        ),
        ({"a": {"x": torch.zeros(1)}, "b": {"y": torch.zeros(1)}}, "of which none fits"),
        ({"optimizer": trained()["optimizer"]}, "holds no state_dict, but optimizer"),
        ({}, "holds no state_dict, but nothing"),
        (torch.zeros(3), "holds Tensor, expected a state_dict"),
        ({**STATE, "0.bias": torch.full((128,), torch.nan)}, r"holds NaN \(0\.bias\)"),
        (
            {**STATE, "0.bias": torch.full((128,), torch.inf)},
            r"no event a finite score: .*buffers \(0\.bias\)",
        ),
        ({"state_dict": create_state_dict(5, features=7)}, "write 'features: 7'"),
        ({**STATE, "9.weight": torch.zeros(1)}, r"(?s)does not fit.*9\.weight"),
    ],
)
def test_what_has_several_meanings_or_none_is_named(
    tmp_path: Path, content: object, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        scores(saved(tmp_path / "other.pt", content))


def save_module(path: Path) -> None:
    network = build(3)
    network.load_state_dict(STATE)
    torch.save(network, path)


def save_script(path: Path) -> None:
    network = build(3)
    network.load_state_dict(STATE)
    torch.jit.script(network).save(path)  # type: ignore[no-untyped-call]


def save_checkpoint_with_objects(path: Path) -> None:
    torch.save({"state_dict": STATE, "folder": Path("runs")}, path)


def save_two(path: Path) -> None:
    torch.save({"model": STATE, "ema": create_state_dict(6)}, path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("save", [save_module, save_script, save_checkpoint_with_objects, save_two])
def test_the_command_that_an_error_names_makes_weights_that_are_taken(
    tmp_path: Path, expected: list[float], save: Callable[[Path], None]
) -> None:
    path = tmp_path / "it's mine.pt"
    save(path)
    with pytest.raises(ModelError) as caught:
        scores(path)
    command = re.search(r"\.venv/bin/python (-c .*)", str(caught.value))
    assert command, caught.value
    subprocess.run(
        [sys.executable, *shlex.split(command.group(1))],
        check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert scores(tmp_path / "it's mine_weights.pt") == expected


def test_a_safetensors_file_is_named_with_its_conversion(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match=r"pip install safetensors, and .*load_file\("):
        scores(path)


class Made(nn.Module):
    """A network whose forward is a function, with one weight."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self._of = forward

    def forward(self, rows: torch.Tensor) -> Any:
        return self._of(rows @ self.weight, rows)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda _, rows: rows, r"shape \[16, 3\].*return outputs\.softmax\(dim=1\)\[:, 1\]"),
        (lambda score, _: score.mean(), r"shape \[\] for 16 events: .*one number for each row"),
        (lambda score, _: (score, None), "one score an event, not tuple"),
        (lambda score, _: score.softmax(dim=0), "depends on the other events of its batch"),
        (lambda score, _: functional.dropout(score, 0.5, training=True), "differently each time"),
        (lambda score, _: score.to(torch.complex64), "complex64"),
    ],
)
def test_a_network_that_cannot_be_served_is_refused_in_words(
    forward: Callable[..., Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        Scorer(Made(forward), 3, torch.device("cpu"))


def test_a_network_of_float64_scores_float32_features() -> None:
    scorer = Scorer(Made(lambda score, _: score), 3, torch.device("cpu"))
    assert scorer.score(np.ones((2, 3), np.float32)).tolist() == [3.0, 3.0]


def test_batchnorm_and_dropout_are_those_of_evaluation() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), nn.Linear(3, 1)).train()
    assert Scorer(network, 3, torch.device("cpu")).score(ROWS).shape == (20,)
    batchwise = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 1))
    with pytest.raises(ModelError, match="track_running_stats=False"):
        Scorer(batchwise, 3, torch.device("cpu"))


def test_a_network_whose_every_score_is_nan_is_refused_and_what_is_broken_in_it_named() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    network[0].get_buffer("running_mean").fill_(torch.nan)
    with pytest.raises(ModelError, match=r"no event a finite score: .*\(0\.running_mean\)"):
        Scorer(network, 3, torch.device("cpu"))
    with pytest.raises(ModelError, match=r"buffers, and for a division by 0"):
        Scorer(Made(lambda score, _: score / 0 - score / 0), 3, torch.device("cpu"))


def test_a_network_of_categories_is_asked_for_the_first_one() -> None:
    class Categories(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 1)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.table(rows[:, 0].long())
            return found

    assert Scorer(Categories(), 2, torch.device("cpu")).score(ROWS[:, :2] * 0).shape == (20,)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def build(features): pass", r"returned NoneType, not a torch\.nn\.Module: .*return"),
        ("def build(): pass", r"failed: TypeError.*called with the number of features, 3"),
        ("def build(features): return 1 / 0", "failed: ZeroDivisionError"),
        ("def build(", "importing 'own' failed: SyntaxError"),
        (
            "import not_there",
            r"no module not_there\. .*INCLUDE='… not_there\.py'",
        ),
        ("1 / 0", "importing 'own' failed: ZeroDivisionError"),
        ("other = None", "'own' has no attribute 'build'"),
    ],
)
def test_a_factory_that_does_not_do_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    (tmp_path / "own.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    with pytest.raises(ModelError, match=reason):
        load_scorer("own:build", 3, saved(tmp_path / "w.pt", STATE))
    sys.modules.pop("own", None)
