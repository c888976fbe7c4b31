"""A stack's life: starting, stopping, restarting, losing a process, failing to start."""

import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
import urllib3
import yaml

from handler.archive import build_archive
from handler.default_model import default_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running_stack import RunningStack

    Start = Callable[..., RunningStack]

ROOT = Path(__file__).parents[2]
READY = "medianserve is ready"
JVM, STATE = "org.pytorch.serve.ModelServer", "state_service"


def events(user: str, count: int = 7) -> list[dict[str, Any]]:
    return [
        {"user_id": user, "timestamp": time.time(), "features": [i, 1.5, -i / 3]}
        for i in range(count)
    ]


def medians(stack: "RunningStack", users: list[str]) -> Any:
    body = {"user_ids": users}
    return stack.http.request("POST", stack.url(8090, "/medians"), json=body).json()["items"]


def test_stopping_and_starting_again_keeps_every_median(start_stack: "Start") -> None:
    first = start_stack()
    first.wait_for_line(READY)
    users = [f"user-{i}" for i in range(20)]
    first.post([event for user in users for event in events(user)])
    first.post(events("user-1"), Idempotency_Key="seen-before")
    before = medians(first, users)
    assert first.stop(signal.SIGTERM) == 0

    second = start_stack()
    second.wait_for_line(READY)
    assert medians(second, users) == before
    assert all(item["count"] for item in before)
    second.post(events("user-1"), Idempotency_Key="seen-before")
    assert medians(second, users) == before
    assert second.stop(signal.SIGINT) == 0


def test_ctrl_c_under_load_loses_nothing_that_was_acknowledged(start_stack: "Start") -> None:
    stack = start_stack()
    stack.wait_for_line(READY)
    acknowledged, sent = [0] * 4, [0] * 4
    stopping = threading.Event()

    def load(sender: int) -> None:
        while not stopping.is_set():
            sent[sender] += 1
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                body = json.dumps(events("loaded", 5)).encode()
                acknowledged[sender] += stack.post_raw(body).status == 200

    threads = [threading.Thread(target=load, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while sum(acknowledged) < 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert stack.stop(signal.SIGINT) == 0  # while they send
    stopping.set()
    for thread in threads:
        thread.join()

    again = start_stack()
    again.wait_for_line(READY)
    while (found := again.get("/users/loaded/median")["count"]) < 5 * sum(acknowledged):
        assert time.monotonic() < deadline + 60, (found, acknowledged)  # what was spooled last
        time.sleep(0.1)
    assert found % 5 == 0  # a request counts wholly or not at all
    assert found <= 5 * sum(sent)
    assert again.stop() == 0


def test_a_killed_process_is_started_again_and_the_output_says_so(
    start_stack: "Start", tmp_path: Path
) -> None:
    shutil.copytree(default_store(), tmp_path / "store")
    stack = start_stack(tmp_path / "var", TS_MODEL_STORE=str(tmp_path / "store"))
    stack.wait_for_line(READY)
    stack.post(events("kept"))
    kept = stack.get("/users/kept/median")

    stack.kill(STATE)
    assert "started again" in stack.wait_for_line("state-service ended unexpectedly")
    stack.wait_for_line(f"{READY} again")
    assert stack.get("/users/kept/median") == kept
    assert stack.post(events("after-state"))["recorded"] == "stored"

    (tmp_path / "store" / "scorer.mar").write_text("another")  # the stack has kept its own
    stack.kill(JVM)
    assert "started again" in stack.wait_for_line("torchserve ended unexpectedly")
    stack.wait_for_line(f"{READY} again")
    assert stack.post(events("after-torchserve"))["recorded"] == "stored"
    assert stack.get("/users/kept/median") == kept

    os.kill(stack.workers()[0]["pid"], signal.SIGKILL)  # TorchServe itself brings it back
    deadline = time.monotonic() + 30
    while stack.post_raw(b"[]").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert stack.stop() == 0


def test_what_is_scored_while_the_state_service_stalls_is_spooled_and_counted_afterwards(
    start_stack: "Start",
) -> None:
    stack = start_stack()
    stack.wait_for_line(READY)
    state = stack.pid_of(STATE)
    os.kill(state, signal.SIGSTOP)
    try:
        began = time.monotonic()
        sent = events("a", 3)
        response = stack.post_raw(json.dumps(sent).encode())
        assert time.monotonic() - began < 5
        assert (response.status, response.json()["recorded"]) == (200, "spooled")
        began = time.monotonic()
        assert stack.post(events("a", 2))["recorded"] == "spooled"
        assert time.monotonic() - began < 1  # no further request waits for it
        assert stack.post_raw(b"[]", X_Dry_Run="1").status == 200
    finally:
        os.kill(state, signal.SIGCONT)
    # The first request has reached it as well, through its socket: it counts once.
    deadline = time.monotonic() + 30
    while stack.get("/stats")["spool"]["replayed_events"] != 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert stack.get("/users/a/median")["count"] == 5
    assert stack.post(sent)["recorded"] == "stored"
    assert stack.stop() == 0


def test_a_port_in_use_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "stack", "run", "--var", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "STATE_PORT": str(port), "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{port}",
                 "TS_MODEL_STORE": str(default_store())},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"port {port}" in done.stderr
    assert "PORT_OFFSET" in done.stderr


def test_a_killed_supervisor_takes_its_processes_with_it(start_stack: "Start") -> None:
    stack = start_stack()
    stack.wait_for_line(READY)
    stack.post(events("kept"))
    family = psutil.Process(stack.process.pid).children(recursive=True)
    stack.kill("supervisor.supervisord")
    stack.wait_for_line("error: supervisord ended")
    assert stack.process.wait(timeout=60) == 1
    assert psutil.wait_procs(family, timeout=5)[1] == [], "a process was left behind"

    again = start_stack()
    again.wait_for_line(READY)
    assert again.get("/users/kept/median")["count"] == 7
    assert again.stop() == 0


@pytest.mark.parametrize("killed", [["launcher"], ["launcher", "supervisor.supervisord"]])
def test_a_killed_launcher_takes_its_processes_with_it_and_the_next_start_its_folder(
    start_stack: "Start", killed: list[str]
) -> None:
    stack = start_stack()
    stack.wait_for_line(READY)
    stack.post(events("kept"))
    family = psutil.Process(stack.process.pid).children(recursive=True)
    (jvm,) = [process for process in family if JVM in process.cmdline()]
    scratch = Path(jvm.environ()["TMPDIR"])
    pids = [stack.process.pid if name == "launcher" else stack.pid_of(name) for name in killed]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    stack.process.wait()
    assert psutil.wait_procs(family, timeout=60)[1] == [], "a process was left behind"

    again = start_stack()
    again.wait_for_line(READY)
    assert again.get("/users/kept/median")["count"] == 7
    assert not scratch.exists()
    assert again.stop() == 0


def test_a_folder_in_use_by_another_stack_is_one_clear_sentence(
    start_stack: "Start", tmp_path: Path
) -> None:
    start_stack(tmp_path).wait_for_line(READY)
    second = start_stack(tmp_path)
    assert "PORT_OFFSET" in second.wait_for_line(f"error: {tmp_path} is used by another stack")
    assert second.process.wait(timeout=20) == 1


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "stack", "run", "--var", str(tmp_path / "file")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot write to" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_broken_archive_ends_with_the_reason(start_stack: "Start", tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "scorer.mar").write_bytes(b"not an archive")
    stack = start_stack(TS_MODEL_STORE=str(store))
    assert "make model" in stack.wait_for_line(f"error: {store}/scorer.mar is missing or damaged")
    assert stack.process.wait(timeout=60) == 1


def test_a_misspelt_handler_variable_is_one_clear_sentence(start_stack: "Start") -> None:
    stack = start_stack(HANDLER_STATE_URLL="http://127.0.0.1:1")
    stack.wait_for_line("error: unknown setting HANDLER_STATE_URLL")
    assert stack.process.wait(timeout=60) == 1


def test_predictions_that_fail_are_noticed_and_said(start_stack: "Start") -> None:
    stack = start_stack()
    stack.wait_for_line(READY)
    worker = stack.workers()[0]["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        stack.wait_for_line("medianserve is not ready")
    finally:
        os.kill(worker, signal.SIGCONT)
    stack.wait_for_line(f"{READY} again")
    assert stack.stop() == 0


def test_a_model_that_does_not_fit_ends_with_the_reason(
    start_stack: "Start", tmp_path: Path
) -> None:
    shutil.copytree(default_store(), tmp_path / "store")
    stack = start_stack(TS_MODEL_STORE=str(tmp_path / "store"), HANDLER_FEATURES="4")
    stack.wait_for_line("error: the model does not load")
    assert stack.process.wait(timeout=60) == 1
    stack.close()
    assert "does not fit the network that handler.network:build builds" in stack.rest()


def test_a_network_of_one_s_own_is_served(start_stack: "Start", tmp_path: Path) -> None:
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n\n\ndef build(features):\n    return nn.Linear(features, 1)\n"
    )
    torch.manual_seed(1)
    network = torch.nn.Linear(5, 1)
    torch.save(network.state_dict(), tmp_path / "own.pt")
    shipped = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
    shipped["handler"] = {"factory": "own_network:build", "features": 5, "weights": "own.pt"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(shipped))
    build_archive(
        tmp_path / "store" / "scorer.mar",
        tmp_path / "own.pt",
        tmp_path / "own.yaml",
        [tmp_path / "own_network.py"],
    )
    stack = start_stack(TS_MODEL_STORE=str(tmp_path / "store"))
    stack.wait_for_line(READY)
    row = [1.0, 2.0, 3.0, 4.0, 5.0]
    answer = stack.post([{"user_id": "a", "timestamp": time.time(), "features": row}])
    expected = network(torch.tensor([row])).item()
    # Padded rows are summed in another order, and a sum near zero keeps few of its digits.
    assert answer["scores"] == [pytest.approx(expected, rel=1e-6, abs=1e-6)]
    assert stack.get("/users/a/median")["median"] == answer["scores"][0]
    assert stack.post([{"user_id": "a", "timestamp": 1, "features": [1, 2, 3]}])["skipped"] == 1


def test_ctrl_c_in_a_terminal_stops_make_run_cleanly(stack: "RunningStack") -> None:
    """`make run` under a pseudo-terminal, as a person starts and stops it."""
    make = shutil.which("make")
    assert make, "make is what the README asks for"
    offset = stack.offset + 200
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(make, ["make", "run", f"PORT_OFFSET={offset}"])
    output = b""
    try:
        deadline = time.monotonic() + 60
        while READY.encode() not in output:
            assert time.monotonic() < deadline, output
            output += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        while True:
            try:
                output += os.read(terminal, 4096)
            except OSError:  # the terminal's last user is gone
                break
    finally:
        os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, output
    assert b"stopping" in output
    assert b"***" not in output, "make itself was not interrupted"
    shutil.rmtree(ROOT / "var" / f"offset-{offset}")  # a folder of its own, beside a running stack
