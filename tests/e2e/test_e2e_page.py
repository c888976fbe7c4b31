"""The live page's numbers, from the real stack."""

import json

from tests.running_stack import RunningStack


def test_the_page_knows_the_workers_and_the_queue_of_the_real_torchserve(
    stack: RunningStack,
) -> None:
    url = f"http://127.0.0.1:{8090 + stack.offset}/events?limit=4"
    body = stack.http.request("GET", url).data.decode()
    last = json.loads(body.strip().split("\n\n")[-1].partition("data: ")[2])
    torchserve = last["torchserve"]
    assert torchserve["state"] == "healthy"
    assert torchserve["workers_ready"] == torchserve["workers"] >= 1
    assert torchserve["version"] == "1.0"
    assert torchserve["queue_pending"] is not None
    assert torchserve["queue_room"] > 0


def test_the_ready_line_says_where_the_page_is(stack: RunningStack) -> None:
    ready = next(line for line in stack.output if "is ready" in line)
    page = f"http://127.0.0.1:{8090 + stack.offset}/"
    assert f"live at {page}" in ready
    assert stack.http.request("GET", page).status == 200
