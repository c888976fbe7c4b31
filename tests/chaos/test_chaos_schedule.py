"""A schedule is a function of its seed, and deals every kind of fault."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chaos.schedule import Kind, deal

LINK = {kind for kind in Kind if kind.value.startswith(("cut", "delay", "thr", "reset", "swall"))}


def test_a_seed_gives_the_same_rounds_each_time_and_another_gives_others() -> None:
    assert deal(5, 40, Kind, 1.0) == deal(5, 40, Kind, 1.0)
    assert deal(5, 40, Kind, 1.0) != deal(6, 40, Kind, 1.0)


@given(st.integers(min_value=0, max_value=2**32))
def test_every_kind_comes_once_before_one_comes_again(seed: int) -> None:
    rounds = deal(seed, len(Kind), Kind, 1.0)
    first = [fault.kind for each in rounds for fault in each.faults][: len(Kind)]
    assert set(first) == set(Kind)


@given(st.integers(min_value=0, max_value=2**32))
def test_a_round_never_has_two_troubles_of_the_one_connection(seed: int) -> None:
    for each in deal(seed, 50, Kind, 1.0):
        kinds = Counter(fault.kind in LINK for fault in each.faults)
        assert kinds[True] <= 1
        assert 1 <= len(each.faults) <= 2


def test_only_the_kinds_asked_for_are_dealt_and_pauses_are_about_what_was_asked() -> None:
    rounds = deal(1, 30, [Kind.CUT, Kind.KILL_JVM], 2.0)
    assert {fault.kind for each in rounds for fault in each.faults} == {Kind.CUT, Kind.KILL_JVM}
    assert all(1.0 <= each.pause_seconds <= 3.0 for each in rounds)
    assert any(len(each.faults) == 2 for each in rounds)


def test_every_fault_says_what_it_does() -> None:
    for each in deal(2, 60, Kind, 1.0):
        for fault in each.faults:
            assert "{" not in str(fault)
