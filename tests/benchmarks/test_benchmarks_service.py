"""The benchmark of the whole service: its peers are real, its numbers add up, its faults show."""

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import torch
import typer
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks import cases, contenders, service
from benchmarks.bodies import Bodies, make_bodies
from benchmarks.cases import Case, Measurement
from benchmarks.contenders import CONTENDERS, Contender, Running, StartError
from benchmarks.drawing import draw
from benchmarks.headlines import headlines
from benchmarks.load import Load, LoadError, read_summary, wrk
from benchmarks.open_loop import open_loop
from benchmarks.peers.serving import load_network
from benchmarks.plan import run
from benchmarks.tables import HEADINGS, markdown, row
from benchmarks.usage import Usage, per_million, role_of
from handler.default_model import default_weights
from handler.packing import DEFAULT_CONFIG

BY_NAME = {contender.name: contender for contender in CONTENDERS}


def drive(url: str, bodies: Bodies, connections: int, seconds: int) -> Load:
    """Send as fast as it is answered, without wrk."""
    deadline = time.monotonic() + seconds / 2

    def client(number: int) -> int:
        answered = 0
        with urllib3.PoolManager(retries=False) as pool:
            while time.monotonic() < deadline:
                body = bodies.encoded[(number + answered) % len(bodies.encoded)]
                assert pool.request("POST", url, body=body, headers=bodies.headers).status == 200
                answered += 1
        return answered

    with ThreadPoolExecutor(connections) as clients:
        answered = sum(clients.map(client, range(connections)))
    return Load(answered, seconds / 2, 1.0, 2.0)


def post_events(running: Running, events: list[dict[str, object]]) -> None:
    answer = urllib3.request("POST", running.ingest_url, json={"events": events})
    assert answer.status == 200, answer.data


def worker_pids(running: Running) -> list[int]:
    family = psutil.Process(running.pid).children(recursive=True)
    return [process.pid for process in family if role_of(process.cmdline()) == "workers"]


def measurement(contender: str, case: str, **numbers: float) -> Measurement:
    encoding, _, events = case.partition("-")
    assert encoding in {"json", "ndjson", "arrow"}
    found = Measurement(contender, 1, cases.CLOSED_LOOP, case, 10_000, int(events))
    found.requests_per_second, found.cpu_per_million = 100.0, {"workers": 1.0}
    for name, value in numbers.items():
        setattr(found, name, value)
    found.events_per_second = found.requests_per_second * found.events_per_request
    return found


@pytest.mark.parametrize("name", ["reference", "rewrite"])
def test_a_peer_keeps_exact_medians_and_forgets_what_is_old(name: str) -> None:
    network = load_network(default_weights())
    features = [[0.1, 0.2, 0.3], [1.0, -2.0, 0.5], [0.0, 3.0, 0.0], [5.0, 5.0, 5.0]]
    scores = network(torch.tensor(features)).reshape(-1).tolist()
    with BY_NAME[name].start(1) as running:
        now = time.time()
        post_events(
            running,
            [
                {"user_id": "ann", "timestamp": now - 200 + place, "features": row}
                for place, row in enumerate(features)
            ],
        )
        assert running.accepted() == 4
        assert running.median("ann") == pytest.approx(statistics.median(scores), abs=1e-6)
        assert running.median("nobody") is None
        old = [{"user_id": "bob", "timestamp": now - 301, "features": row} for row in features]
        post_events(running, old)
        assert running.median("bob") is None


def test_a_run_measures_the_peers_and_finds_that_they_counted_all() -> None:
    plan = service.plan_for(
        quick=True,
        seconds=1,
        contender=["reference", "rewrite"],
        case=["json-10", "json-1000", "open-loop"],
    )
    said: list[str] = []
    found = list(run(plan, drive, said.append))
    assert [(item.contender, item.kind, item.case) for item in found] == [
        ("reference", cases.CLOSED_LOOP, "json-10"),
        ("reference", cases.CLOSED_LOOP, "json-1000"),
        ("reference", cases.OPEN_LOOP, "json-10"),
        ("rewrite", cases.CLOSED_LOOP, "json-10"),
        ("rewrite", cases.CLOSED_LOOP, "json-1000"),
        ("rewrite", cases.OPEN_LOOP, "json-10"),
    ]
    left_out = found.pop(1)
    assert left_out.refused is not None
    assert "in time" in left_out.refused
    for item in found:
        assert item.wrong is None
        assert not item.errors
        assert item.accepted == item.acknowledged > 0
        assert item.cpu_per_million["server"] > 0
        assert item.peak_mib > 50
    assert any("rewrite" in line for line in said)


def test_a_case_that_a_contender_refuses_is_reported_and_not_measured() -> None:
    rewrite = BY_NAME["rewrite"]
    with rewrite.start(1) as running:
        found = cases.measure(
            rewrite, running, 1, Case("ndjson", 10), drive, seconds=1, warm_up_seconds=0
        )
    assert found.refused is not None
    assert found.refused.startswith("422 ")
    assert not found.measured
    assert "not measured: 422" in row(found)[-1]


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "workers"), [("echo", 1), ("medianserve", 2)])
def test_torchserve_is_measured_by_role_with_as_many_workers_as_asked(
    name: str, workers: int
) -> None:
    contender = BY_NAME[name]
    with contender.start(workers) as running:
        assert len(worker_pids(running)) == workers
        found = cases.measure(
            contender, running, workers, Case("json", 10), drive, seconds=1, warm_up_seconds=0
        )
        assert found.wrong is None
        assert found.requests_per_second > 0
        assert {"JVM", "workers"} <= found.cpu_per_million.keys()
        assert ("state service" in found.cpu_per_million) == (name == "medianserve")
        assert (found.accepted is None) == (name == "echo")
        load = open_loop(running.ingest_url, make_bodies("json", 10, 4), 500, 0.5)
        assert (load.answered, load.errors, load.never_sent) == (25, {}, 0)


def test_a_contender_that_does_not_start_is_named_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_workers: int) -> contextlib.AbstractContextManager[Running]:
        raise StartError("no engine")

    monkeypatch.setattr(service, "CONTENDERS", (Contender("rewrite", broken),))
    monkeypatch.setattr(service, "missing", lambda: None)
    app = typer.Typer()
    app.command()(service.main)
    file = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["--quick", "--json", str(file)])
    assert result.exit_code == 1
    assert "no engine" in result.output
    report = json.loads(file.read_text())
    assert [found["refused"] for found in report["measurements"]] == ["no engine"] * 3


def test_a_peer_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "default_weights", lambda: Path("no/such/weights.pt"))
    with (
        pytest.raises(StartError, match=r"no/such/weights\.pt"),
        BY_NAME["reference"].start(1),
    ):
        pass


def test_without_wrk_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(LoadError, match="apt install wrk"):
        wrk("http://127.0.0.1:1", make_bodies("json", 1, 1), 1, 1)
    app = typer.Typer()
    app.command()(service.main)
    result = CliRunner().invoke(app, ["--quick"])
    assert result.exit_code == 2
    assert "apt install wrk" in result.output


def test_what_cannot_be_written_or_imported_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = typer.Typer()
    app.command()(service.main)
    for words in (["--json", "no/such/folder/file"], ["--picture", "file.gif"]):
        assert CliRunner().invoke(app, words).exit_code == 2
    monkeypatch.setattr("shutil.which", lambda _: "/bin/true")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = CliRunner().invoke(app, ["--quick"])
    assert result.exit_code == 2
    assert "make bench-setup" in result.output


def test_without_wrk_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LoadError):
        wrk("http://127.0.0.1:9/", make_bodies("json", 3, 5), 2, 1)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="there is no wrk here")
def test_wrk_sends_all_bodies_in_turn() -> None:
    with BY_NAME["rewrite"].start(1) as running:
        load = wrk(running.ingest_url, make_bodies("json", 3, 5), 2, 1)
        assert load.answered > 10
        assert not load.errors
        assert 0 < load.p50_ms <= load.p99_ms
        counted = cases.settled(running.accepted)
        assert counted is not None
        assert 3 * load.answered <= counted <= 3 * (load.answered + 2)


def test_an_unknown_case_or_contender_is_refused_with_the_known_ones() -> None:
    with pytest.raises(typer.BadParameter, match="json-1000"):
        service.plan_for(quick=False, seconds=5, case=["json-7"])
    with pytest.raises(typer.BadParameter, match="medianserve"):
        service.plan_for(quick=False, seconds=5, contender=["kafka"])
    plan = service.plan_for(quick=False, seconds=5)
    assert [contender.name for contender in plan.contenders] == list(BY_NAME)
    assert (len(plan.cases), plan.workers, plan.open_seconds) == (11, (1, 2), 15)


def test_every_encoding_holds_the_same_events() -> None:
    as_json, lines = (make_bodies(encoding, 20, 3) for encoding in ("json", "ndjson"))
    for whole, cut in zip(as_json.encoded, lines.encoded, strict=True):
        events, others = json.loads(whole)["events"], [json.loads(line) for line in cut.split()]
        for event, other in zip(events, others, strict=True):
            assert event["timestamp"] == pytest.approx(other["timestamp"], abs=2)
            del event["timestamp"], other["timestamp"]
        assert events == others
    assert as_json.some_user == json.loads(as_json.encoded[0])["events"][0]["user_id"]
    assert len(set(as_json.encoded)) == 3


def test_an_arrow_body_is_a_stream_of_the_columns_promised() -> None:
    table = pa.ipc.open_stream(make_bodies("arrow", 20, 1).encoded[0]).read_all()
    assert [str(kind) for kind in table.schema.types] == [
        "string",
        "double",
        "fixed_size_list<item: float>[3]",
    ]
    events = json.loads(make_bodies("json", 20, 1).encoded[0])["events"]
    assert table["user_id"].to_pylist() == [event["user_id"] for event in events]
    for features, event in zip(table["features"].to_pylist(), events, strict=True):
        assert features == pytest.approx(event["features"], abs=1e-6)


def test_uniform_bodies_reach_every_user() -> None:
    bodies = Case("json", 10, users=700, uniform=True).bodies()
    users = {event["user_id"] for body in bodies.encoded for event in json.loads(body)["events"]}
    assert len(users) == 700
    assert len(bodies.encoded) == 70


def test_answers_of_400_and_more_are_errors_and_no_throughput() -> None:
    errors = {"connect": 0, "read": 2, "write": 0, "status": 30, "timeout": 0}
    load = read_summary(
        {
            "requests": 100, "microseconds": 2_000_000, "p50": 1500, "p99": 9000, "longest": 9500,
            "errors": errors,
        }
    )  # fmt: skip
    assert (load.answered, load.seconds, load.p50_ms, load.p99_ms) == (70, 2.0, 1.5, 9.0)
    assert load.errors == {"read": 2, "status": 30}


@given(
    acknowledged=st.integers(0, 1000),
    extra=st.integers(-50, 50),
    connections=st.integers(1, 16),
    failed=st.integers(0, 9),
)
def test_counts_agree_up_to_what_was_under_way_or_failed(
    acknowledged: int, extra: int, connections: int, failed: int
) -> None:
    found = measurement("medianserve", "json-10")
    found.acknowledged, found.accepted = acknowledged * 10, (acknowledged + extra) * 10
    found.errors = {"read": failed} if failed else {}
    agrees = 0 <= extra <= connections + failed
    assert (cases.miscount(found, connections) is None) == agrees


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("java -cp x org.pytorch.serve.ModelServer --python python", "JVM"),
        ("python /ts/model_service_worker.py --sock-type unix", "workers"),
        ("python -m state_service", "state service"),
        ("python -m benchmarks.peers.rewrite weights", "server"),
        ("python -m stack run", "supervision"),
    ],
)
def test_a_process_has_the_role_its_command_line_tells(command: str, role: str) -> None:
    assert role_of(command.split()) == role


def test_the_cpu_and_memory_of_children_are_counted_by_role() -> None:
    burn = "import time; end = time.process_time() + 0.3; block = b'x' * 2**26\n"
    burn += "while time.process_time() < end: pass\nprint('done', flush=True); input()"
    child = [sys.executable, "-c", burn, "state_service"]
    parent = f"import subprocess; subprocess.run({child!r})"
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with Usage(process.pid) as usage:
            assert process.stdout.readline() == b"done\n"
        process.stdin.write(b"\n")
    assert usage.cpu_seconds["state service"] >= 0.25
    assert usage.peak_mib > 64
    assert per_million({"JVM": 2.0}, 500_000) == {"JVM": 4.0}
    assert per_million({"JVM": 2.0}, 0) == {}


def test_headlines_compare_what_was_measured_and_admit_what_was_not() -> None:
    found = [
        measurement("medianserve", "json-1", requests_per_second=300.0),
        measurement("echo", "json-1", requests_per_second=400.0),
        measurement("medianserve", "json-100", requests_per_second=200.0),
        measurement("reference", "json-100", requests_per_second=20.0),
        replace(measurement("echo", "json-100"), refused="503"),
    ]
    for name, p99 in (("medianserve", 9.0), ("echo", 6.0)):
        item = measurement(name, "json-10", p99_ms=p99)
        found.append(replace(item, kind=cases.OPEN_LOOP))
    found[-2].busy_cores = {"workers": 0.2, "state service": 0.1, "JVM": 0.5}
    for users, rate in ((10, 50.0), (1000, 40.0)):
        item = measurement("medianserve", "json-1000", requests_per_second=rate)
        item.cpu_per_million = {"workers": 2.0, "JVM": 50.0 / rate}
        found.append(replace(item, kind=cases.MANY_USERS, users=users))
    said = {line.text: line.value for line in headlines(found)}
    one = "1 worker"
    assert said[f"requests/s of medianserve over echo, 1 event a request, {one}"] == 0.75
    assert said[f"requests/s of medianserve over echo, 100 events a request, {one}"] is None
    over = "events/s of medianserve over the"
    assert said[f"{over} reference, 100 events a request, {one}"] == 10.0
    assert said[f"{over} rewrite, 100 events a request, {one}"] is None
    assert said[f"p99 of medianserve over echo at a fixed rate, {one}"] == 1.5
    assert said[f"CPU of workers and state service at that rate, {one}"] == pytest.approx(30.0)
    assert said["events/s, fastest over slowest, 10 to 1,000 users"] == 1.25
    dearest = "CPU an event of workers and state service, dearest over cheapest"
    assert said[f"{dearest}, 10 to 1,000 users"] == 1.0


def test_tables_show_errors_and_wrong_counts_and_keep_their_columns() -> None:
    bad = measurement("medianserve", "json-10")
    bad.errors, bad.accepted, bad.wrong = {"status": 7}, 5, "5 events counted, 9 acknowledged"
    refused = replace(measurement("echo", "arrow-10"), refused="400 a | b\nc")
    text = markdown({"cores": 2}, headlines([bad, refused]), [bad, refused])
    assert "7 status errors; WRONG: 5 events counted, 9 acknowledged" in text
    assert "not measured: 400 a \\| b c" in text
    tables = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 4
    assert {line.count("|") for line in tables} == {len(HEADINGS) + 1}


def test_the_picture_is_drawn_whatever_was_measured(tmp_path: Path) -> None:
    draw([], tmp_path / "empty.svg")
    several = [measurement("medianserve", f"{kind}-100") for kind in ("json", "arrow")]
    draw([*several, replace(several[0], kind=cases.MANY_USERS)], tmp_path / "some.svg")
    assert (tmp_path / "some.svg").read_text().startswith("<?xml")


def test_contenders_do_not_see_the_settings_of_the_shell() -> None:
    kept = contenders.clean_environment(
        {
            "STATE_DATABASE": "mine.db",
            "TS_MODEL_STORE": "x",
            "HANDLER_FEATURES": "9",
            "PATH": "/bin",
        }
    )
    assert kept == {"PATH": "/bin"}


def test_the_echo_archive_has_our_batching_and_its_own_handler(tmp_path: Path) -> None:
    contenders.build_echo_archive(tmp_path)
    with zipfile.ZipFile(tmp_path / "scorer.mar") as archive:
        assert "echo_handler.py" in archive.namelist()
        assert archive.read("model-config.yaml") == DEFAULT_CONFIG.read_bytes()
