"""Weights become a scorer, or a sentence that says what does not fit."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from handler.create_model import create_state_dict, main
from handler.errors import ModelError
from handler.network import build
from handler.scoring import Scorer, load_scorer

CPU = torch.device("cpu")


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(tmp_path / "weights.pt", create_state_dict())


def test_the_network_is_the_one_that_was_asked_for() -> None:
    layers = [
        (type(layer).__name__, getattr(layer, "out_features", None))
        for layer in build(3).children()
    ]
    assert layers == [
        ("Linear", 128), ("ReLU", None), ("Dropout", None),
        ("Linear", 128), ("ReLU", None), ("Linear", 1),
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_parameters_byte_for_byte() -> None:
    first, again, other = create_state_dict(7), create_state_dict(7), create_state_dict(8)
    for name, tensor in first.items():
        assert tensor.numpy().tobytes() == again[name].numpy().tobytes()
        assert tensor.numpy().tobytes() != other[name].numpy().tobytes()


def test_parameters_fill_the_range_of_a_tenth() -> None:
    values = torch.cat([tensor.flatten() for tensor in create_state_dict().values()])
    assert values.abs().max() <= 0.1
    assert values.min() < -0.099
    assert values.max() > 0.099


def test_the_command_writes_a_state_dict_and_no_pickled_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "model.pt"
    main(["--seed", "7", "--output", str(output)])
    loaded = torch.load(output, weights_only=True)
    assert loaded.keys() == create_state_dict(7).keys()
    assert all(torch.equal(loaded[name], value) for name, value in create_state_dict(7).items())
    assert str(output) in capsys.readouterr().out


def test_scores_are_those_of_the_network(weights: Path) -> None:
    features = np.random.default_rng(1).normal(size=(32, 3)).astype(np.float32)
    network = build(3)
    network.load_state_dict(create_state_dict())
    with torch.inference_mode():  # 32 rows: whole blocks, as the scorer makes them
        expected = network.eval()(torch.from_numpy(features)).squeeze(1).double().numpy()
    scores = load_scorer("handler.network:build", 3, weights).score(features)
    assert scores.dtype == np.float64
    assert scores.tolist() == expected.tolist()


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 100, 639, 1023, 1024, 1025, 2500])
def test_a_score_does_not_depend_on_its_neighbours_to_the_last_bit(
    weights: Path, count: int
) -> None:
    scorer = load_scorer("handler.network:build", 3, weights)
    features = np.random.default_rng(2).normal(size=(4000, 3)).astype(np.float32)
    everybody = scorer.score(features)
    for start in (0, 1, 5, 300, 1023):  # a forward takes at most 1,024 rows
        part = slice(start, start + count)
        assert scorer.score(features[part]).tolist() == everybody[part].tolist()


def test_no_events_need_no_forward(weights: Path) -> None:
    scores = load_scorer("handler.network:build", 3, weights).score(np.empty((0, 3), np.float32))
    assert scores.shape == (0,)


def test_without_a_gpu_an_assigned_one_falls_back_to_the_cpu(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    scorer = load_scorer("handler.network:build", 3, weights, gpu_id=0)
    assert scorer.score(np.zeros((1, 3), np.float32)).shape == (1,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_scores_agree_with_the_cpu_s(weights: Path) -> None:
    features = np.random.default_rng(3).normal(size=(100, 3)).astype(np.float32)
    on_gpu = load_scorer("handler.network:build", 3, weights, gpu_id=0).score(features)
    on_cpu = load_scorer("handler.network:build", 3, weights).score(features)
    assert on_gpu == pytest.approx(on_cpu, rel=1e-4)


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("handler.network:missing", "missing"),
        ("no_such_module:build", "no_such_module"),
        ("handler.network", "module:callable"),
        ("", "module:callable"),
    ],
)
def test_an_unknown_factory_is_named(weights: Path, factory: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        load_scorer(factory, 3, weights)


def test_weights_of_another_shape_are_refused(weights: Path) -> None:
    with pytest.raises(ModelError, match=r"weights\.pt does not fit .*write 'features: 3'"):
        load_scorer("handler.network:build", 4, weights)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.pt not found"):
        load_scorer("handler.network:build", 3, tmp_path / "none.pt")


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "module.pt", build(3))
    with pytest.raises(ModelError, match="not a state_dict"):
        load_scorer("handler.network:build", 3, path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, ("exploded",)


def test_a_pickle_that_runs_code_is_refused_unrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(ModelError, match="not a state_dict"):
        load_scorer("handler.network:build", 3, path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_file_that_is_no_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.pt is not a state_dict"):
        load_scorer("handler.network:build", 3, path)


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds list"):
        load_scorer("handler.network:build", 3, saved(tmp_path / "list.pt", [1]))


def test_a_network_with_two_outputs_an_event_is_refused() -> None:
    with pytest.raises(ModelError, match="one score an event"):
        Scorer(nn.Linear(3, 2), 3, CPU)


def test_a_network_of_another_feature_count_is_refused() -> None:
    with pytest.raises(ModelError, match="does not take 5 features"):
        Scorer(nn.Linear(3, 1), 5, CPU)
