"""Hostile bodies do no harm in the decoders, and the fuzzer would see it if they did."""

from itertools import islice
from random import Random

import pytest

from fuzzing import decoding, running
from fuzzing.corpus import cases
from fuzzing.decoding import Hostile, look_at, look_at_batch
from fuzzing.mutation import spoil
from fuzzing.running import Tally, by_hand, drawn, look_through
from fuzzing.targets import SCORER_TARGETS, Target
from handler.errors import RequestError
from handler.reading import Request, read_requests
from handler.settings import HandlerSettings

NOW = 1_795_000_000.0
GOOD = Hostile("good", Target.JSON, b'[{"user_id":"a","timestamp":1,"features":[1,2,3]}]')
RANDOM = Random(1)


def _explained(tally: Tally) -> str:
    return "\n".join(f"{f.target}, {f.name}: {f.what}\n{f.body[:300]!r}" for f in tally.findings)


def test_no_body_of_the_corpus_does_harm() -> None:
    tally = look_through(by_hand(NOW), "corpus")
    assert not tally.findings, _explained(tally)
    assert set(tally.bodies) == {target.name for target in Target if target is not Target.QUERY}


@pytest.mark.parametrize("seed", ["a", "b"])
def test_no_drawn_body_does_harm(seed: str) -> None:
    tally = look_through(islice(drawn(seed, NOW), 2000), seed)
    assert not tally.findings, _explained(tally)
    assert set(tally.bodies) == {target.name for target in Target}


def test_cases_are_told_apart_by_their_names() -> None:
    names = [(case.target, case.name) for case in cases(NOW)]
    assert len(names) > 3000
    assert len(set(names)) == len(names)


def test_a_seed_says_which_bodies() -> None:
    first, again, other = (list(islice(drawn(seed, NOW), 200)) for seed in ("a", "a", "b"))
    assert [item.body for item in first] == [item.body for item in again]
    assert [item.body for item in first] != [item.body for item in other]


def test_some_bodies_are_good_and_most_are_not() -> None:
    """A fuzzer whose bodies all fail at the first byte would find nothing behind it."""
    settings = HandlerSettings()
    outcomes = [
        read_requests([Request(item.body, {"content-type": item.target.content_type})], settings)[0]
        for item in islice(drawn("share", NOW), 2000)
        if item.target in SCORER_TARGETS
    ]
    refused = [item for item in outcomes if isinstance(item, RequestError)]
    kept = [item for item in outcomes if not isinstance(item, RequestError)]
    clean = [item for item in kept if not item.columns.errors]
    assert len(clean) > 50
    assert len(kept) - len(clean) > 50
    assert len(refused) > 50
    assert len({item.code for item in refused}) > 3
    assert len({error.code for item in kept for error in item.columns.errors}) > 4


@pytest.mark.parametrize("body", [b"", b"x", b"{}" * 50_000])
def test_any_body_can_be_spoilt(body: bytes) -> None:
    random = Random(2)
    for _ in range(300):
        assert len(spoil(body, random)) < len(body) + (1 << 17)


def test_a_decoder_that_fails_is_found_with_the_body_that_did_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = read_requests

    def failing(requests: list[Request], settings: HandlerSettings) -> object:
        if any(request.body and b"poison" in request.body for request in requests):
            raise ZeroDivisionError
        return real(requests, settings)

    monkeypatch.setattr(decoding, "read_requests", failing)
    poison = Hostile("poison", Target.JSON, b'["poison"]')
    (finding,) = look_at_batch([GOOD, poison, GOOD], RANDOM)
    assert (finding.name, finding.target, finding.body) == ("poison", "JSON", poison.body)
    assert "ZeroDivisionError" in finding.what
    assert look_at_batch([GOOD, GOOD], RANDOM) == []


def test_a_neighbour_that_is_read_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = read_requests

    def mixing(requests: list[Request], settings: HandlerSettings) -> object:
        outcomes = real(requests, settings)
        return outcomes[::-1] if len(outcomes) > 1 else outcomes

    monkeypatch.setattr(decoding, "read_requests", mixing)
    (finding,) = look_at_batch([GOOD], Random(3))
    assert "neighbour" in finding.what


@pytest.mark.parametrize(
    ("error", "what"),
    [(KeyError("x"), "KeyError"), (RecursionError(), "RecursionError"), (MemoryError(), "Memory")],
)
def test_an_exception_of_another_kind_is_found_in_the_state_service_too(
    monkeypatch: pytest.MonkeyPatch, error: Exception, what: str
) -> None:
    def failing(*_: object) -> object:
        raise error

    monkeypatch.setattr("fuzzing.decoding.wire.decode_scores", failing)
    (finding,) = look_at(Hostile("any", Target.SCORES, b"{}"))
    assert what in finding.what


def test_a_body_that_takes_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_CPU_SECONDS", 0.0)
    (finding,) = look_at(Hostile("any", Target.MEDIANS, b'{"user_ids":[]}'))
    assert "it took" in finding.what


def test_bodies_are_shared_among_processes_and_counted_once() -> None:
    tally = Tally()
    for part in running.run(4500, seed=1, processes=2, now=NOW, by_hand_first=False):
        tally.add(part)
    assert tally.total == 4500
    assert not tally.findings, _explained(tally)
    assert len(tally.resident) in (1, 2)
