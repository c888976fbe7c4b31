"""How `make` sets the project up, and what it says when it cannot."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from handler.packing import identity_of
from stack.torch_index import CPU_INDEX

ROOT = Path(__file__).parents[2]
# No test downloads a torch: the index of CPU builds is out of reach.
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "", "TORCH_INDEX_URL": ""}


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """Copy what make and pip look at; nothing is set up in it."""
    checkout = tmp_path / "checkout"
    (checkout / "stack").mkdir(parents=True)
    for name in (
        "Makefile", "pyproject.toml", "constraints.txt", "README.md",
        "stack/__init__.py", "stack/torch_index.py",
    ):  # fmt: skip
        shutil.copy2(ROOT / name, checkout / name)
    return checkout


TOLD = ("PYTHON", "TORCH_INDEX_URL", "WEIGHTS", "MODEL_CONFIG", "INCLUDE", "PYTEST_ADDOPTS")


def make(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        # Of a make around the tests; and what it was told is not what these are told.
        if not name.startswith(("PIP_", "MAKE", "MFLAGS")) and name not in TOLD
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 2
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


def fake_python(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


def fake_tools(tmp_path: Path, **pythons: str) -> str:
    """Return a PATH with the shell's tools and these Pythons alone: name=version, or exit code."""
    tools = tmp_path / "tools"
    for name, version in pythons.items():
        fake_python(
            tools,
            name.replace("_", "."),
            f"echo {version}" if "." in version else f"echo 'pyenv: not found' >&2; exit {version}",
        )
    for tool in ("make", "sh", "rm", "touch", "sed", "grep"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    return str(tools)


@pytest.mark.parametrize("python", ["/nonexistent/python", "/bin/false"])
def test_a_python_that_will_not_do_is_told_with_those_that_will(
    bare_checkout: Path, python: str
) -> None:
    (sentence,) = errors(make(bare_checkout, "run", f"PYTHON={python}"))
    assert sentence == (
        f"error: no Python that will do (3.13 3.12 3.11) among: {python}; "
        "install one, or name it: make PYTHON=/path/to/python3"
    )


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3": "3.12", "python3_13": "3.13"}, "3.12"),  # what the person uses
        ({"python3": "3.9", "python3_11": "3.11", "python3_12": "3.12"}, "3.12"),  # the newest
        ({"python3": "3.14", "python3_13": "127", "python3_11": "3.11"}, "3.11"),  # a dead shim
    ],
)
def test_the_python_that_is_chosen_is_said(
    bare_checkout: Path, tmp_path: Path, pythons: dict[str, str], chosen: str
) -> None:
    done = make(bare_checkout, "run", PATH=fake_tools(tmp_path, **pythons))
    assert done.stdout.startswith(f"using Python {chosen} ({tmp_path}/tools/python3")


def test_an_environment_of_another_python_than_the_one_named_is_refused(
    bare_checkout: Path, tmp_path: Path
) -> None:
    (bare_checkout / ".venv").symlink_to(ROOT / ".venv")
    other = fake_python(tmp_path / "other", "python3", "echo 3.10")
    (sentence,) = errors(make(bare_checkout, "run", f"PYTHON={other}"))
    assert sentence.startswith("error: .venv was made with Python 3.")
    assert "rm -r .venv" in sentence


def test_all_say_the_same_about_which_pythons_will_do() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    named = re.search(r"^PYTHONS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named
    versions = named[1].split()
    classified = [line.rpartition(" ")[2] for line in project["classifiers"]]
    assert versions == classified[::-1]
    oldest, newest = versions[-1], int(versions[0].removeprefix("3."))
    assert project["requires-python"] == f">={oldest},<3.{newest + 1}"
    assert f"for version in {' '.join(versions[-2::-1])}; do" in (ROOT / ".ci/run").read_text()


def test_a_folder_that_no_environment_can_be_in_is_told_with_the_reason(
    bare_checkout: Path, tmp_path: Path
) -> None:
    folder = bare_checkout.rename(tmp_path / "a:b")
    (sentence,) = errors(make(folder, "run", f"PYTHON={sys.executable}"))
    assert sentence.startswith("error: cannot create .venv: ")
    assert "PATH separator" in sentence


def test_a_failed_download_is_one_clear_sentence(bare_checkout: Path) -> None:
    done = make(
        bare_checkout,
        "run",
        f"PYTHON={sys.executable}",
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:9/",
        PIP_RETRIES="0",
        **OFFLINE,
    )
    (sentence,) = errors(done)
    assert sentence.startswith("error: pip could not install the dependencies")
    assert "does not answer" in done.stdout
    assert "check the network" in sentence


def test_help_lists_every_target(bare_checkout: Path) -> None:
    listed = make(bare_checkout, "help").stdout
    for target in ("run", "demo", "test", "check", "model", "default-model", "clean"):
        assert f"make {target} " in listed


def test_the_three_test_targets_leave_no_folder_of_tests_out() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        collected = tomllib.load(file)["tool"]["pytest"]["testpaths"]
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/__init__.py")}
    assert {*collected, "tests/compose", "tests/alerts", "tests/dashboard"} == folders


def test_what_is_no_run_touches_no_model_of_the_user_s(checkout: Path) -> None:
    targets = ("test", "demo", "chaos", "fuzz", "screenshots", "bench", "test-page", "test-observe")
    done = make(checkout, "--dry-run", "clean", *targets, "-o", ".venv/.bench-installed")
    assert done.returncode == 0, done.stderr
    assert "handler.default_model" in done.stdout
    assert "handler.archive" not in done.stdout
    assert "model_store" not in done.stdout


def test_only_what_includes_are_is_split_at_spaces(checkout: Path) -> None:
    folder = checkout / "my own"
    folder.mkdir()
    torch.save(torch.nn.Linear(2, 1).state_dict(), folder / "my $weights.pt")
    (folder / "my model.yaml").write_text(
        "handler: {factory: 'my_network:build', features: 2, weights: 'my $weights.pt'}"
    )
    network = "from torch import nn\n\n\ndef build(features):\n    return nn.Linear(features, 1)\n"
    (checkout / "my_network.py").write_text(network)
    (checkout / "my_table.py").write_text("")
    done = make(
        checkout, "model",
        WEIGHTS="my own/my $weights.pt", MODEL_CONFIG="my own/my model.yaml",
        INCLUDE="my_network.py my_table.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    archive = checkout / "model_store" / "scorer.mar"
    assert identity_of(archive).weights == "my $weights.pt"
    with zipfile.ZipFile(archive) as packed:
        assert {"my_network.py", "my_table.py"} <= set(packed.namelist())


def test_an_include_without_a_model_is_refused(checkout: Path) -> None:
    (sentence,) = errors(make(checkout, "model", "INCLUDE=README.md"))
    assert sentence.startswith("error: --include alone names no model: ")


def test_a_run_without_variables_serves_what_was_packed_last(checkout: Path) -> None:
    (checkout / "my_network.py").write_text(
        "from torch import nn\n\n\ndef build(features):\n    return nn.Linear(features, 1)\n"
    )
    torch.save(torch.nn.Linear(2, 1).state_dict(), checkout / "my.pt")
    (checkout / "my.yaml").write_text(
        "handler: {factory: 'my_network:build', features: [age, amount], weights: my.pt}"
    )
    archive = checkout / "model_store" / "scorer.mar"
    mine = make(checkout, "model", "MODEL_CONFIG=my.yaml", "INCLUDE=my_network.py")
    assert mine.returncode == 0, mine.stderr
    assert identity_of(archive).feature_names == ("age", "amount")
    assert make(checkout, "model").returncode == 0
    assert identity_of(archive).weights == "my.pt"
    assert make(checkout, "default-model").returncode == 0
    assert identity_of(archive).weights == "inefficient_model.pt"


def test_without_chromium_test_page_says_what_to_install(
    bare_checkout: Path, tmp_path: Path
) -> None:
    (bare_checkout / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "bin").mkdir()
    for tool in ("make", "sh"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    done = make(
        bare_checkout, "test-page", "-o", ".venv/.dev-installed",
        PATH=str(tmp_path / "bin"), SHELL="/bin/sh",
    )  # fmt: skip
    (sentence,) = errors(done)
    assert sentence.startswith("error: there is no Chromium; ")


def test_without_docker_test_compose_says_what_is_missing(bare_checkout: Path) -> None:
    (bare_checkout / ".venv").symlink_to(ROOT / ".venv")
    done = subprocess.run(
        ["make", "test-compose", "-o", ".venv/.dev-installed"],
        cwd=bare_checkout,
        env={**os.environ, "DOCKER_HOST": "unix:///nonexistent"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith("error: no Docker engine answers; ")


def test_without_prometheus_test_observe_says_what_is_missing(bare_checkout: Path) -> None:
    (bare_checkout / ".venv").symlink_to(ROOT / ".venv")
    tools = bare_checkout / "tools"
    tools.mkdir()
    for tool in ("make", "sh"):
        path = shutil.which(tool)
        assert path is not None
        (tools / tool).symlink_to(path)
    done = subprocess.run(
        ["make", "test-observe", "-o", ".venv/.dev-installed", "-o", "test-model"],
        cwd=bare_checkout, env={"PATH": str(tools)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith("error: no prometheus here; ")


class Index(http.server.SimpleHTTPRequestHandler):
    """A package index with nothing but a small torch, for CPUs."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def cpu_index(tmp_path: Path) -> Iterator[str]:
    """Serve an index over HTTP, as PyTorch's own is laid out."""
    version = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert version
    folder = tmp_path / "index" / "torch"
    folder.mkdir(parents=True)
    name = f"torch-{version[1]}+cpu"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        info = f"{name}.dist-info"
        wheel.writestr("torch/__init__.py", "")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version[1]}+cpu\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    handler = functools.partial(Index, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_torch_comes_from_the_index_that_is_named(bare_checkout: Path, cpu_index: str) -> None:
    done = make(
        bare_checkout, ".venv/.torch-installed", f"PYTHON={sys.executable}",
        TORCH_INDEX_URL=cpu_index, PIP_CONFIG_FILE=os.devnull,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"installing torch from {cpu_index}: TORCH_INDEX_URL names it\n" in done.stdout
    assert (bare_checkout / ".venv" / ".torch-installed").read_text() == f"{cpu_index}\n"
    (installed,) = bare_checkout.glob(".venv/lib/python3*/site-packages/torch-*.dist-info")
    assert installed.name.endswith("+cpu.dist-info")


def test_an_index_that_was_named_and_does_not_answer_is_one_clear_sentence(
    bare_checkout: Path,
) -> None:
    done = make(
        bare_checkout, ".venv/.torch-installed", f"PYTHON={sys.executable}",
        TORCH_INDEX_URL="http://127.0.0.1:9/", PIP_CONFIG_FILE=os.devnull, PIP_RETRIES="0",
    )  # fmt: skip
    (sentence,) = errors(done)
    assert sentence.startswith("error: pip could not install the dependencies")


def test_an_index_without_a_torch_is_left_for_pip_s_own_and_said(
    bare_checkout: Path, cpu_index: str, tmp_path: Path
) -> None:
    for wheel in (tmp_path / "index" / "torch").iterdir():
        wheel.unlink()
    program = bare_checkout / "stack" / "torch_index.py"
    program.write_text(program.read_text().replace(CPU_INDEX, cpu_index))
    driver = fake_python(tmp_path / "driver", "nvidia-smi", "exit 9")  # it finds no GPU
    done = make(
        bare_checkout, ".venv/.torch-installed", f"PYTHON={sys.executable}",
        PIP_CONFIG_FILE=os.devnull, PATH=f"{driver.parent}:{os.environ['PATH']}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"installing torch from {cpu_index}: no GPU is seen here" in done.stdout
    assert "it has no torch that fits: taking it from pip's own index\n" in done.stdout
    assert (bare_checkout / ".venv" / ".torch-installed").read_text() == "pip's own index\n"


def test_another_index_than_the_one_torch_came_from_is_refused(bare_checkout: Path) -> None:
    (bare_checkout / ".venv" / "bin").mkdir(parents=True)
    (bare_checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (bare_checkout / ".venv" / ".torch-installed").write_text("http://a/simple\n")
    (sentence,) = errors(make(bare_checkout, "run", TORCH_INDEX_URL="http://b/simple"))
    assert sentence == (
        "error: .venv has torch from http://a/simple, not from http://b/simple: "
        "rm -r .venv, and again"
    )
