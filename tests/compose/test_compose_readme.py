"""The README's commands against the containers."""

import re
import subprocess
from typing import TYPE_CHECKING

from tests.compose.conftest import event
from tests.readme import Example, assert_shown, examples, last_document

if TYPE_CHECKING:
    from tests.compose.conftest import ComposeStack

CONTAINERS = "Run it in containers"


def run(stack: "ComposeStack", example: Example) -> None:
    def published(port: re.Match[str]) -> str:
        return f"localhost:{ports[port[1]]}"

    ports = {"8080": stack.scorer_port, "8090": stack.state_port}
    done = subprocess.run(
        ["bash", "-euc", re.sub(r"localhost:(\d+)", published, example.command)],
        cwd=stack.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{example.command}\n{done.stdout}\n{done.stderr}"
    if example.answer is not None:
        assert_shown(example.answer, last_document(done.stdout), example.command)


def test_the_readme_s_curls_answer_the_same_as_without_containers(stack: "ComposeStack") -> None:
    curls = [
        example
        for example in examples()
        if "curl" in example.command
        and "localhost:80" in example.command
        and "localhost:8081" not in example.command
    ]
    assert len(curls) >= 6
    stack.start_afresh()  # what the README shows is counted from nothing
    for example in curls:
        run(stack, example)


def test_the_readme_s_container_commands_run_in_order(stack: "ComposeStack") -> None:
    assert stack.predict(event("backed-up")).status == 200
    commands = [example for example in examples() if example.section == CONTAINERS]
    assert len(commands) >= 5
    for example in commands:
        run(stack, example)
        if "state-backup.db" in example.command:  # backed up, and then restored from nothing
            assert stack.state("/users/backed-up/median")["count"] == 1
    stack.up()  # the last one ends it
