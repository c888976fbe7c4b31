"""Every command in docs/ runs, and answers what is shown."""

import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from handler.packing import identity_of
from tests.e2e.test_e2e_readme import on_ports_of
from tests.readme import ROOT, Example, assert_shown, examples, last_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running_stack import RunningStack

    Start = Callable[..., RunningStack]

READY = "medianserve is ready"
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
# Measured by hand, a quarter of an hour each and on a quiet machine; or run by others' tests; or
# asking for Docker or Prometheus: tests/alerts looks at what these are given.
NOT_RUN_HERE = {"README.md", "performance.md", "CONTRIBUTING.md", "operate.md"}
RUN_HERE = {"tutorial.md", "migrating.md", "errors.md", "access.md", "maintain.md"}


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def run(stack: "RunningStack", checkout: Path, example: Example) -> str:
    done = subprocess.run(
        ["bash", "-euc", on_ports_of(stack, example.command)],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{example.command}\n{done.stdout}\n{done.stderr}"
    if example.answer is not None:
        assert_shown(example.answer, last_document(done.stdout), example.command)
    return done.stdout


@pytest.mark.timeout(180)
def test_the_tutorial_leads_to_the_scores_of_a_model_of_one_s_own(
    start_stack: "Start", checkout: Path, stack: "RunningStack"
) -> None:
    steps = examples(document("tutorial.md"))
    start = next(i for i, step in enumerate(steps) if step.command.startswith("make run"))
    for step in steps[:start]:
        run(stack, checkout, step)
    assert steps[start].command == "make run"
    assert "my_weights.pt" in str(identity_of(checkout / "model_store" / "scorer.mar"))
    own = start_stack(TS_MODEL_STORE=str(checkout / "model_store"))
    own.wait_for_line(READY)
    for step in steps[start + 1 :]:
        run(own, checkout, step)
    assert len(steps) == start + 3


@pytest.mark.timeout(180)
def test_what_was_sent_to_the_old_service_is_answered_here(
    start_stack: "Start", checkout: Path
) -> None:
    fresh = start_stack()  # its counters are shown
    fresh.wait_for_line(READY)
    steps = examples(document("migrating.md"))
    assert steps[0].command == "make run"
    for step in steps[1:]:
        run(fresh, checkout, step)
    assert len(steps) == 4


@pytest.mark.timeout(180)
def test_access_is_opened_step_by_step(start_stack: "Start", checkout: Path) -> None:
    steps = examples(document("access.md"))
    starts = [step for step in steps if step.command.endswith("make run")]
    prepare, *asks = [step for step in steps if step not in starts]
    subprocess.run(["bash", "-euc", prepare.command], cwd=checkout, check=True)
    words = [word for step in starts for word in step.command.split()[:-2]]
    variables = dict(word.split("=") for word in words)
    stack = start_stack(
        **{
            name: str(checkout / value) if name.endswith("_FILE") else value
            for name, value in variables.items()
        }
    )
    stack.wait_for_line(READY)
    for step in asks:
        assert run(stack, checkout, step)
    assert (len(starts), len(asks)) == (2, 3)


@pytest.mark.timeout(180)
def test_a_backup_that_is_put_in_place_answers_as_before(
    start_stack: "Start", checkout: Path
) -> None:
    back_up, put_in_place, start, scale = examples(document("maintain.md"))
    assert start.command == "make run"
    stack = start_stack()
    stack.wait_for_line(READY)
    stack.post([{"user_id": "ann", "timestamp": time.time(), "features": [1, 2, 3]}])
    before = stack.get("/users/ann/median")
    assert " 0 problems" in run(stack, checkout, back_up)
    stack.post([{"user_id": "ann", "timestamp": time.time(), "features": [3, 2, 1]}])
    assert stack.stop() == 0
    run(stack, checkout, put_in_place)
    again = start_stack()
    again.wait_for_line(READY)
    assert again.get("/users/ann/median") == before
    run(again, checkout, scale)
    assert len(again.workers()) == 2


ERRORS = [step for step in examples(document("errors.md")) if step.section.startswith("`")]


@pytest.mark.parametrize("example", ERRORS, ids=lambda step: step.section)
def test_each_error_s_command_gets_that_error(
    example: Example, stack: "RunningStack", checkout: Path
) -> None:
    code, status = re.fullmatch(r"`(\w+)`, (\d+)", example.section).groups()  # type: ignore[union-attr]
    problem = last_document(run(stack, checkout, example))
    assert (problem["code"], problem["status"]) == (code, int(status))


def test_no_document_with_commands_is_left_out() -> None:
    with_commands = {path.name for path in DOCUMENTS if examples(path.read_text())}
    assert with_commands <= NOT_RUN_HERE | RUN_HERE


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_s_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert (
            target.startswith(("https://", "http://localhost")) or (path.parent / target).exists()
        ), target
