"""What TorchServe could be talked into, and what keeps it from it: see SECURITY.md."""

import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running_stack import RunningStack


def test_everything_listens_on_loopback_alone(stack: "RunningStack") -> None:
    listening = {
        connection.laddr
        for process in psutil.Process(stack.process.pid).children(recursive=True)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {port - stack.offset for _, port in listening} >= {8080, 8081, 8082, 7070, 7071, 8090}
    assert {address.removeprefix("::ffff:") for address, _ in listening} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("kind", ["models", "workflows"])
@pytest.mark.parametrize(
    "source", ["http://127.0.0.1:{port}/evil.mar", "file://{file}", "file:///nonexistent/../{file}"]
)
def test_nothing_is_loaded_from_an_address(
    stack: "RunningStack", tmp_path: "Path", kind: str, source: str
) -> None:
    file = tmp_path / "evil.mar"
    file.write_bytes(b"PK")
    url = source.format(port=stack.offset, file=file)
    answer = stack.http.request("POST", stack.url(8081, f"/{kind}"), fields={"url": url})
    assert 400 <= answer.status < 500, answer.data
    query = stack.http.request("POST", stack.url(8081, f"/{kind}?url={url}"))
    assert 400 <= query.status < 500, query.data
    store = stack.var / "model_store"
    assert [path.name for path in store.iterdir()] == ["scorer.mar"]


def test_the_model_cannot_be_taken_away_or_replaced(stack: "RunningStack") -> None:
    assert stack.http.request("DELETE", stack.url(8081, "/models/scorer")).status >= 400
    again = stack.http.request("POST", stack.url(8081, "/models?url=scorer.mar"))
    assert again.status >= 400
    assert stack.post([{"user_id": "u", "timestamp": time.time(), "features": [1, 2, 3]}])


def test_a_page_of_another_site_gets_no_leave_from_torchserve(stack: "RunningStack") -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for port, path in ((8080, "/predictions/scorer"), (8081, "/models/scorer"), (8082, "/metrics")):
        for method in ("OPTIONS", "GET"):
            answer = stack.http.request(method, stack.url(port, path), headers=asked)
            assert not any(name.lower().startswith("access-control") for name in answer.headers)
