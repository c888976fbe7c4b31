"""Counted once: what is remembered of a batch, for how long, and how many."""

import pytest

from state_service.batch_keys import MOST_MOVED, BatchCounts, BatchKeys, SeenKey
from state_service.errors import CapacityError

COUNTS = BatchCounts(accepted=3, late=2, future=1)


def _keys_seen_at(*moments: float, max_keys: int = 100) -> BatchKeys:
    """Return keys k0, k1, … seen at these moments, forgotten after 10 s."""
    keys = BatchKeys(retention_seconds=10.0, max_keys=max_keys)
    for number, moment in enumerate(moments):
        keys.add(SeenKey(f"k{number}", moment, COUNTS))
    return keys


def test_a_key_is_unknown_until_it_is_added_and_then_tells_its_counts() -> None:
    keys = _keys_seen_at(100.0)
    assert keys.find("k0") == COUNTS
    assert keys.find("k1") is None
    assert len(keys) == 1


def test_a_key_is_forgotten_once_it_is_older_than_the_retention() -> None:
    keys = _keys_seen_at(100.0, 101.0, 102.0)
    keys.expire(111.0)
    assert [keys.find(f"k{number}") for number in range(3)] == [None, COUNTS, COUNTS]
    keys.expire(111.0)
    assert len(keys) == 2
    keys.expire(1000.0)
    assert len(keys) == 0


def test_room_is_checked_for_all_new_keys_together() -> None:
    keys = _keys_seen_at(100.0, 100.0, max_keys=3)
    keys.make_room(1)
    with pytest.raises(CapacityError, match="max_batch_keys"):
        keys.make_room(2)
    keys.expire(200.0)
    keys.make_room(3)


def test_a_key_is_handed_to_one_snapshot_only() -> None:
    keys = _keys_seen_at(100.0, 101.0)
    assert [seen.key for seen in keys.take_unsaved()] == ["k0", "k1"]
    assert keys.take_unsaved() == []
    keys.add(SeenKey("k2", 102.0, COUNTS))
    assert keys.take_unsaved() == [SeenKey("k2", 102.0, COUNTS)]
    assert len(keys) == 3


def test_keys_that_were_not_saved_come_first_in_the_next_snapshot() -> None:
    keys = _keys_seen_at(100.0, 101.0)
    taken = keys.take_unsaved()
    keys.add(SeenKey("k2", 102.0, COUNTS))
    keys.put_back(taken)
    assert [seen.key for seen in keys.take_unsaved()] == ["k0", "k1", "k2"]


def test_restored_keys_are_known_and_need_no_saving() -> None:
    keys = BatchKeys(retention_seconds=10.0, max_keys=100)
    keys.restore([SeenKey("old", 100.0, COUNTS), SeenKey("older", 105.0, COUNTS)])
    assert keys.find("old") == COUNTS
    assert keys.take_unsaved() == []
    keys.expire(112.0)
    assert keys.find("old") is None
    assert keys.find("older") == COUNTS


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_was_ahead_for_a_moment_keeps_no_later_key(*, restarted: bool) -> None:
    moments = [100.0, 5000.0, 101.0, 102.0]  # an hour and more ahead, once
    keys = _keys_seen_at(*moments)
    if restarted:
        seen = keys.take_unsaved()
        keys = BatchKeys(retention_seconds=10.0, max_keys=100)
        keys.restore(seen)
    keys.expire(103.0)
    assert len(keys) == 4
    keys.expire(111.5)
    assert [keys.find(f"k{number}") for number in range(4)] == [None, COUNTS, None, COUNTS]
    keys.add(SeenKey("k4", 112.0, COUNTS))
    keys.make_room(96)
    keys.expire(200.0)
    assert [keys.find(f"k{number}") for number in (1, 3, 4)] == [COUNTS, None, None]
    keys.put_back([SeenKey("k1", 5000.0, COUNTS), SeenKey("k3", 102.0, COUNTS)])
    assert "k3" not in {seen.key for seen in keys.take_unsaved()}
    keys.expire(5011.0)
    assert len(keys) == 0


def test_keys_ahead_of_the_clock_are_forgotten_each_in_its_own_time() -> None:
    keys = _keys_seen_at(11_000.0, 10_400.0, 10_000.0, 10_400.0)
    keys.expire(10_001.0)
    assert len(keys) == 4
    keys.expire(10_411.0)
    assert [keys.find(f"k{number}") for number in range(4)] == [COUNTS, None, None, None]


def test_after_a_clock_was_set_back_a_call_moves_a_bounded_number_of_keys() -> None:
    keys = _keys_seen_at(*[5000.0] * (2 * MOST_MOVED + 1), max_keys=4 * MOST_MOVED)
    keys.add(SeenKey("late", 100.0, COUNTS))
    held = []
    while len(keys) > 2 * MOST_MOVED + 1:  # until the key behind them is reached
        keys.expire(111.0)
        held.append(len(keys))
    assert len(held) == 3
    assert keys.find("late") is None
    assert all(keys.find(f"k{number}") for number in range(2 * MOST_MOVED + 1))
    for left in (MOST_MOVED + 1, 1, 0):
        keys.expire(5011.0)
        assert len(keys) == left


@pytest.mark.parametrize("restarted", [False, True])
def test_keys_ahead_of_the_clock_give_way_when_there_is_no_room(*, restarted: bool) -> None:
    keys = BatchKeys(retention_seconds=10.0, max_keys=4)
    keys.add(SeenKey("now", 100.0, COUNTS), 100.0)
    for number in range(3):
        keys.add(SeenKey(f"ahead {number}", 5000.0 + number, COUNTS), 100.0)
    if restarted:
        seen = keys.take_unsaved()
        keys = BatchKeys(retention_seconds=10.0, max_keys=4)
        keys.restore(seen, 100.0)
    assert keys.make_room(2) == 2
    assert [keys.find(f"ahead {number}") for number in range(3)] == [None, None, COUNTS]
    with pytest.raises(CapacityError):
        keys.make_room(4)
    assert len(keys) == 2
    keys.expire(111.0)
    assert keys.find("now") is None
