"""User ids and slots: each other's inverse, and no larger than they need be."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from state_service.interning import UserTable

names = st.integers(0, 40).map(lambda number: f"user {number}")


@given(st.lists(st.tuples(st.booleans(), st.lists(names, min_size=1, max_size=20)), max_size=20))
def test_ids_and_slots_are_each_others_inverse_whoever_comes_and_goes(
    steps: list[tuple[bool, list[str]]],
) -> None:
    table = UserTable()
    present: dict[str, int] = {}
    for arriving, ids in steps:
        if arriving:
            slots = table.intern(ids).tolist()
            for user_id, slot in zip(ids, slots, strict=True):
                assert present.setdefault(user_id, slot) == slot
        else:
            leaving = [present.pop(user_id) for user_id in set(ids) & present.keys()]
            table.release(np.array(leaving, np.int32))
        table.check()
        assert len(table) == len(present)
        assert len(set(present.values())) == len(present)
        assert table.find_many(ids).tolist() == [present.get(user_id, -1) for user_id in ids]
        assert table.names(np.array([*present.values()], np.int32)) == [*present]


def test_newcomers_take_the_lowest_free_slots() -> None:
    table = UserTable()
    table.intern([f"user {number}" for number in range(3000)])
    table.release(np.array([2999, 17, 5], np.int32))
    table.check()
    assert table.intern(["a", "b", "c", "d"]).tolist() == [5, 17, 2999, 3000]
    table.check()


def test_after_a_rush_the_arrays_are_as_small_as_before() -> None:
    table = UserTable()
    capacity, array_bytes = table.capacity, table.array_bytes
    slots = table.intern([f"user {number}" for number in range(200_000)])
    assert table.capacity >= 200_000
    table.release(slots[10:])
    table.check()
    assert (table.capacity, table.array_bytes) == (capacity, array_bytes)
    assert len(table.ids) == capacity
    assert table.intern(["user 3", "somebody new"]).tolist() == [3, 10]


def test_when_everybody_has_left_the_arrays_are_as_small_as_at_first() -> None:
    table = UserTable()
    array_bytes, id_bytes = table.array_bytes, table.id_bytes()
    table.release(table.intern([f"user {number}" for number in range(50_000)]))
    table.check()
    assert table.array_bytes == array_bytes
    assert table.id_bytes() <= 2 * id_bytes


def test_who_stays_in_a_high_slot_is_not_cut_off() -> None:
    table = UserTable()
    slots = table.intern([f"user {number}" for number in range(20_000)])
    table.release(slots[:-1])
    table.check()
    assert table.find("user 19999") == slots[-1]
    assert table.intern(["new"]).tolist() == [0]
    table.release(slots[-1:])
    table.check()
    assert table.capacity < 2000
