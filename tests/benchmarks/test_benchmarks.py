"""The benchmarks run, report what they promise, and what they check is right."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import engine, engines, growth, measuring, oracle, soak

MEASURED = {
    "updates_per_second",
    "mixed_per_second",
    "query_p50_us",
    "query_p99_us",
    "rss_bytes_per_event",
}


def _invoke(main: object, *words: str) -> str:
    app = typer.Typer()
    app.command()(main)  # type: ignore[type-var]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_quick_run_measures_every_engine_there_is_and_none_answers_wrongly(
    tmp_path: Path,
) -> None:
    file = tmp_path / "report.json"
    output = _invoke(engine.main, "--quick", "--seconds", "0.05", "--json", str(file))
    report = json.loads(file.read_text())
    assert report["wrong"] == 0
    assert report["checked"] > 50
    assert [found["workload"] for found in report["workloads"]] == [
        "zipf",
        "one-user",
        "many-users",
        "large",
    ]
    for found in report["workloads"]:
        engines = {measured["engine"]: measured for measured in found["engines"]}
        assert engines.keys() == {contender.name for contender in measuring.CONTENDERS}
        for name, measured in engines.items():
            assert name in output
            if measured["skipped"] is not None:
                assert "needs" in measured["skipped"]
            elif name != "medianserve, slots given":
                assert all(measured[number] is not None for number in MEASURED)
                assert measured["updates_per_second"] > 0
        ours = engines["medianserve"]
        assert ours["checked"] >= 2
        assert ours["own_bytes_per_event"].keys() == {"arrays", "user ids"}


def test_a_wrong_answer_is_counted_and_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.engines.Segments.median", lambda *_: 0.5)
    app = typer.Typer()
    app.command()(engine.main)
    words = ["--quick", "--seconds", "0.01", "--workload", "zipf"]
    assert CliRunner().invoke(app, words).exit_code == 1


def test_an_engine_that_is_not_installed_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    for name in ("SortedList", "river", "Redis"):
        assert "make bench-setup" in str(engines.missing(name))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert "redis-server" in str(engines.missing("Redis"))
    assert engines.missing("river") is None


def test_the_engine_agrees_with_the_oracle_on_thousands_of_answers() -> None:
    tally = oracle.compare(6_000, seed=3)
    assert tally.questions >= 6_000
    assert tally.wrong == 0
    assert min(tally.restarts, tally.clock_jumps, tally.bracketed) > 0


def test_the_oracle_notices_a_wrong_median(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("state_service.statistics._middle", lambda low, _: low)
    assert oracle.compare(500, seed=5).wrong > 0


def test_memory_is_back_where_it_began_when_all_users_have_passed_through() -> None:
    empty, first, passed, rush, silence = soak.soak(60_000, 2_000, memtable_events=500)
    assert first.live_events >= 2_000
    # As many live at once is as much held, however many have been there meanwhile.
    assert passed.active_users <= 2 * first.active_users
    assert passed.array_bytes <= 2 * first.array_bytes
    assert passed.user_id_bytes <= 3 * first.user_id_bytes
    assert rush.active_users >= 10_000
    assert (silence.active_users, silence.live_events) == (0, 0)
    assert silence.array_bytes == empty.array_bytes
    assert silence.user_id_bytes <= 2 * empty.user_id_bytes


def test_growth_is_measured_along_both_axes() -> None:
    points = growth.measure_growth(quick=True)
    assert [point.live_events for point in points["live_events"]] == [2000, 4000]
    assert [point.users for point in points["users"]] == [10, 100]
    assert all(point.query_p99_us >= point.query_p50_us > 0 for point in points["users"])


def test_growth_is_drawn(tmp_path: Path) -> None:
    points = [growth.Point(live, 10, 100.0, 50.0, 90.0, 13.0) for live in (1000, 2000)]
    growth.draw({"live_events": points, "users": points}, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")
