"""Every command in the README runs, and answers what the README shows."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from handler.settings import HandlerSettings

if TYPE_CHECKING:
    from tests.e2e.conftest import RunningStack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

# Run elsewhere: `make run` under a terminal in test_e2e_life, `make test` by whoever reads this.
ELSEWHERE = {"make run", "make test"}
# Values that are another at each run; that they are there is what counts.
VOLATILE = {"newest_timestamp", "avg_ingest_latency_seconds"}


class Example(NamedTuple):
    command: str
    answer: Any  # None where the README shows none


def examples() -> list[Example]:
    blocks = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
    assert {language for language, _ in blocks} <= {"bash", "json"}
    found: list[Example] = []
    for language, text in blocks:
        if language == "bash":
            found.append(Example(text.strip(), None))
        else:
            found[-1] = found[-1]._replace(answer=json.loads(text))
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the working tree, so that commands that write do not touch this one."""
    copy = tmp_path / "checkout"
    built = shutil.ignore_patterns(".venv", ".git", "var", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=built)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


def on_ports_of(stack: "RunningStack", command: str) -> str:
    command = re.sub(
        r"localhost:(\d+)", lambda port: f"localhost:{int(port[1]) + stack.offset}", command
    )
    urls = f"--url {stack.url(8080, '')} --state-url {stack.url(8090, '')}"
    command = command.replace("generator run", f"generator run {urls}")
    command = command.replace("var/state.db", str(stack.var / "state.db"))
    return command.replace("make demo", f"make demo PORT_OFFSET={stack.offset + 200}")


def last_document(text: str) -> Any:
    """Return the last of several JSON documents in a row, as a loop of curls prints them."""
    decoder, end, document = json.JSONDecoder(), 0, None
    while text[end:].strip():
        document, end = decoder.raw_decode(text, end)
    return document


def assert_shown(shown: Any, real: Any, where: str = "answer") -> None:
    """Assert that what the README shows is in the real answer; it may show less."""
    if isinstance(shown, dict):
        assert isinstance(real, dict), where
        for key, value in shown.items():
            assert key in real, f"{where} has no {key}"
            if key not in VOLATILE or value is None:
                assert_shown(value, real[key], f"{where}.{key}")
            else:
                assert isinstance(real[key], float), f"{where}.{key}"
    elif isinstance(shown, list):
        assert len(shown) == len(real), where
        for index, (one, other) in enumerate(zip(shown, real, strict=True)):
            assert_shown(one, other, f"{where}[{index}]")
    elif isinstance(shown, float):
        # Another processor may round a score's last bit another way.
        assert math.isclose(shown, real, rel_tol=1e-6), f"{where}: {shown} != {real}"
    else:
        assert shown == real, where


@pytest.mark.timeout(180)
def test_the_readme_s_commands_run_in_order_and_answer_what_it_shows(
    start_stack: Callable[..., "RunningStack"], checkout: Path
) -> None:
    stack = start_stack()
    stack.wait_for_line("medianserve is ready")
    run = 0
    for example in examples():
        if example.command in ELSEWHERE:
            continue
        done = subprocess.run(
            ["bash", "-euc", on_ports_of(stack, example.command)],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{example.command}\n{done.stdout}\n{done.stderr}"
        run += 1
        if example.answer is not None:
            assert_shown(example.answer, last_document(done.stdout), example.command)
    assert run >= 10


def test_the_readme_lists_every_handler_setting() -> None:
    listed = re.findall(r"^\| `(\w+)` \| [^|]+ \| ", README, re.MULTILINE)
    assert set(HandlerSettings.__struct_fields__) <= set(listed)


def test_the_readme_s_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


def test_the_readme_s_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
