"""What was packed last is known, is packed anew when it has changed, and is never replaced."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml

from handler.archive import build_archive
from handler.create_model import create_state_dict
from handler.errors import ModelError
from handler.packing import (
    choose_inputs,
    has_current_code,
    identity_of,
    is_current,
    packed_inputs,
)

ROOT = Path(__file__).parents[2]
NETWORK = "from torch import nn\n\n\ndef build(features):\n    return nn.Linear(features, 1)\n"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder like the checkout of somebody whose model has three named features."""
    save(tmp_path / "my_weights.pt", seed=1)
    (tmp_path / "my_network.py").write_text(NETWORK)
    handler = {
        "factory": "my_network:build",
        "features": ["age", "amount", "risk"],
        "weights": "my_weights.pt",
    }
    (tmp_path / "my_model.yaml").write_text(yaml.safe_dump({"handler": handler}))
    (tmp_path / "model_store").mkdir()
    torch.save(create_state_dict(), tmp_path / "model_store" / "inefficient_model.pt")
    return tmp_path


@pytest.fixture
def archive(folder: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "handler.archive", *arguments],
            cwd=folder, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    return run


OWN = ("--config", "my_model.yaml", "--include", "my_network.py")


def save(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(torch.nn.Linear(3, 1).state_dict(), path)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:12]


def packed(folder: Path) -> str:
    return str(identity_of(folder / "model_store" / "scorer.mar"))


def test_a_model_that_was_packed_stays_the_one_that_is_served(folder: Path, archive: Run) -> None:
    done = archive(*OWN)
    mine = f"scorer 1.0, 3 features, my_weights.pt (sha256 {digest(folder / 'my_weights.pt')})"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f": {mine}\n")
    before = (folder / "model_store" / "scorer.mar").read_bytes()

    again = archive("--again")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert (folder / "model_store" / "scorer.mar").read_bytes() == before

    assert archive().returncode == 0  # back to the default one: a command of its own
    assert packed(folder).startswith("scorer 1.0, 3 features, inefficient_model.pt")


def test_where_nothing_was_packed_the_default_model_is(folder: Path, archive: Run) -> None:
    assert archive("--again").returncode == 0
    assert packed(folder).startswith("scorer 1.0, 3 features, inefficient_model.pt")


def test_what_was_packed_last_is_packed_anew_when_a_file_of_it_changes(
    folder: Path, archive: Run
) -> None:
    archive(*OWN, "--version", "7")
    save(folder / "my_weights.pt", seed=2)
    os.utime(folder / "my_weights.pt", (0, 0))  # what is in it counts, not its age
    done = archive("--again")
    assert (done.returncode, done.stderr) == (0, "")
    assert packed(folder) == (
        f"scorer 7, 3 features, my_weights.pt (sha256 {digest(folder / 'my_weights.pt')})"
    )


def test_another_handler_packs_the_same_model_anew(folder: Path, archive: Run) -> None:
    archive(*OWN)
    age(folder / "model_store" / "scorer.mar")
    done = archive("--again")
    assert (done.returncode, done.stderr) == (0, "")
    assert "my_weights.pt" in packed(folder)
    assert is_current_here(folder)


def test_an_archive_tells_whether_its_handler_is_the_one_that_is_here(
    folder: Path, archive: Run
) -> None:
    archive(*OWN)
    packed = folder / "model_store" / "scorer.mar"
    assert has_current_code(packed)
    age(packed)
    assert not has_current_code(packed)


def age(archive: Path) -> None:
    """Make it an archive of another version of the handler."""
    with zipfile.ZipFile(archive) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    members["handler/answering.py"] += b"\n"
    with zipfile.ZipFile(archive, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)


def is_current_here(folder: Path) -> bool:
    path = folder / "model_store" / "scorer.mar"
    inputs = packed_inputs(path)
    here = Path.cwd()
    try:
        os.chdir(folder)
        return is_current(path, inputs)
    finally:
        os.chdir(here)


def test_a_model_whose_files_are_gone_is_served_as_it_was_packed(
    folder: Path, archive: Run
) -> None:
    archive(*OWN)
    before = packed(folder)
    (folder / "my_weights.pt").unlink()
    done = archive("--again")
    assert done.returncode == 0
    assert done.stdout.startswith("note: my_weights.pt is not there any more")
    assert packed(folder) == before

    age(folder / "model_store" / "scorer.mar")
    refused = archive("--again")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "my_weights.pt, which is not there any more: put it back" in refused.stderr
    assert "make default-model" in refused.stderr
    assert packed(folder) == before


@pytest.mark.parametrize("content", [b"no archive", None])
def test_an_archive_that_does_not_say_what_it_was_packed_from_is_not_replaced(
    folder: Path, archive: Run, content: bytes | None
) -> None:
    path = folder / "model_store" / "scorer.mar"
    if content is None:
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("somebody/else", "s")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    done = archive("--again")
    assert done.returncode == 1
    assert "make model WEIGHTS=" in done.stderr
    assert "make default-model" in done.stderr
    assert path.read_bytes() == before


def test_weights_that_are_not_named_are_those_of_the_yaml(folder: Path, tmp_path: Path) -> None:
    config = folder / "my_model.yaml"
    assert choose_inputs(config=config).weights == folder / "my_weights.pt"
    with pytest.raises(ModelError, match=r"names the weights my_weights\.pt, but .*other\.pt were"):
        choose_inputs(weights=folder / "other.pt", config=config)
    (folder / "my_weights.pt").unlink()
    with pytest.raises(ModelError, match=r"make model WEIGHTS=/path/to/my_weights\.pt MODEL_"):
        choose_inputs(config=config)


def test_weights_alone_are_the_default_network_s_under_their_own_name(folder: Path) -> None:
    torch.save(create_state_dict(7), folder / "retrained.pt")
    build_archive(folder / "scorer.mar", folder / "retrained.pt")
    assert identity_of(folder / "scorer.mar").weights == "retrained.pt"


@pytest.mark.parametrize(
    "arguments", [("--include", "my_network.py"), ("--version", "2.0", "--output", "other.mar")]
)
def test_what_belongs_to_a_model_never_packs_the_default_one_by_itself(
    folder: Path, archive: Run, arguments: tuple[str, ...]
) -> None:
    archive(*OWN)
    before = packed(folder)
    refused = archive(*arguments)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {arguments[0]} alone names no model: ")
    assert "--weights, --config" in refused.stderr
    assert packed(folder) == before
    assert not (folder / "other.mar").exists()


def test_weights_that_take_the_default_yaml_instead_of_yours_say_so(
    folder: Path, archive: Run
) -> None:
    retrained = folder / "retrained.pt"
    torch.save(create_state_dict(7), retrained)
    assert "note" not in archive("--weights", "retrained.pt").stdout  # nothing of yours was there
    archive(*OWN)
    done = archive("--weights", "retrained.pt")
    assert done.stdout.startswith(
        "note: until now model_store/scorer.mar was packed with my_model.yaml; without "
        "MODEL_CONFIG=my_model.yaml (--config) the default model's YAML is used\n"
    )
    assert "note" not in archive("--weights", "retrained.pt").stdout


def test_what_is_packed_again_keeps_its_version(folder: Path, archive: Run) -> None:
    archive(*OWN, "--version", "7")
    refused = archive("--again", "--version", "8")
    assert refused.returncode == 2
    assert "--again takes the files and the version from the archive" in refused.stderr
    assert packed(folder).startswith("scorer 7,")


def test_a_folder_travels_without_what_python_has_left_in_it(folder: Path) -> None:
    package = folder / "my_package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text(NETWORK)
    (package / "__pycache__" / "x.pyc").write_text("")
    (package / "table.json").write_text("{}")
    torch.save(create_state_dict(), folder / "w.pt")
    build_archive(folder / "scorer.mar", folder / "w.pt", include=[package])
    with zipfile.ZipFile(folder / "scorer.mar") as found:
        names = {name for name in found.namelist() if name.startswith("my_package/")}
    assert {name for name in names if not name.endswith("/")} == {
        "my_package/__init__.py",
        "my_package/table.json",
    }


def test_a_file_of_a_name_that_the_archive_needs_is_refused(folder: Path) -> None:
    (folder / "scorer_handler.py").write_text("")
    with pytest.raises(ModelError, match=r"a file scorer_handler\.py already; rename yours"):
        build_archive(
            folder / "scorer.mar",
            folder / "model_store" / "inefficient_model.pt",
            include=[folder / "scorer_handler.py"],
        )


@pytest.mark.parametrize("text", ["", "- a list", "handler: [", "\x00"])
def test_a_file_that_is_no_model_yaml_is_named(folder: Path, archive: Run, text: str) -> None:
    (folder / "broken.yaml").write_text(text)
    done = archive("--config", "broken.yaml")
    assert done.returncode == 1
    assert "broken.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_names_of_the_features_are_part_of_the_identity(folder: Path, archive: Run) -> None:
    archive(*OWN)
    found = identity_of(folder / "model_store" / "scorer.mar")
    assert found.feature_names == ("age", "amount", "risk")
    with zipfile.ZipFile(folder / "model_store" / "scorer.mar") as packed:
        assert json.loads(packed.read("packed.json"))["weights"] == "my_weights.pt"
