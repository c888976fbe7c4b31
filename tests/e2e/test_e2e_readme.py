"""Every command in the README runs, and answers what the README shows."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.readme import README, ROOT, assert_shown, examples, last_document

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

# Run elsewhere: `make run` under a terminal in test_e2e_life, `make test` by whoever reads this,
# the section on containers by tests/compose.
ELSEWHERE = {"make run", "make test"}
CONTAINERS = "Run it in containers"


def on_ports_of(stack: "RunningStack", command: str) -> str:
    command = re.sub(
        r"localhost:(\d+)", lambda port: f"localhost:{int(port[1]) + stack.offset}", command
    )
    urls = f"--url {stack.url(8080, '')} --state-url {stack.url(8090, '')}"
    command = command.replace("generator run", f"generator run {urls}")
    for file in ("state.db", "backup.db", "key_file.json"):
        command = command.replace(f"var/{file}", str(stack.var / file))
    return command.replace("make demo", f"make demo PORT_OFFSET={stack.offset + 200}")


@pytest.mark.timeout(180)
def test_the_readme_s_commands_run_in_order_and_answer_what_it_shows(
    start_stack: Callable[..., "RunningStack"], checkout: Path
) -> None:
    stack = start_stack()
    stack.wait_for_line("medianserve is ready")
    run = 0
    for section, command, answer in examples():
        if section == CONTAINERS or command in ELSEWHERE:
            continue
        done = subprocess.run(
            ["bash", "-euc", on_ports_of(stack, command)],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        run += 1
        if answer is not None:
            assert_shown(answer, last_document(done.stdout), command)
    assert run >= 10


def test_the_readme_s_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([\w-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


def test_the_readme_s_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith(("https://", "http://localhost")) or (ROOT / target).exists(), (
            target
        )
