"""The one sort behind every segment against numpy's comparison sort."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from state_service.ordering import by_slot_then_score

# Neighbours in float64 agree in their upper halves, so that the comparison has to repair.
scores = st.one_of(
    st.floats(allow_nan=False),
    st.sampled_from([0.0, -0.0, 1e300, -1e300, 5e-324]),
    st.integers(0, 50).map(lambda ulps: 1.0 + ulps * 2.0**-52),
    st.integers(0, 50).map(lambda ulps: -1.0 - ulps * 2.0**-52),
)
slots = st.one_of(st.integers(0, 3), st.sampled_from([65_535, 65_536, 131_072, 2**31 - 1]))


@given(st.lists(st.tuples(slots, scores), max_size=60))
def test_events_are_in_order_of_slot_and_within_it_of_score(
    events: list[tuple[int, float]],
) -> None:
    slot_column = np.array([slot for slot, _ in events], np.int32)
    score_column = np.array([score for _, score in events], np.float64)
    ordered = by_slot_then_score(slot_column, score_column)
    expected = np.lexsort((score_column, slot_column))
    assert ordered.slots.tolist() == slot_column[expected].tolist()
    assert ordered.scores.tolist() == score_column[expected].tolist()
    # The order is a permutation, and the keys are those at its places, bit by bit.
    assert sorted(ordered.order.tolist()) == list(range(len(events)))
    assert ordered.slots.tobytes() == slot_column[ordered.order].tobytes()
    assert ordered.scores.tobytes() == score_column[ordered.order].tobytes()


def test_scores_that_all_agree_in_their_upper_half_are_in_order() -> None:
    dice = np.random.default_rng(3)
    score_column = (1.0 + dice.integers(0, 2**30, 5000) * 2.0**-52).astype(np.float64)
    slot_column = dice.integers(0, 3, 5000).astype(np.int32)
    ordered = by_slot_then_score(slot_column, score_column)
    expected = np.lexsort((score_column, slot_column))
    assert ordered.scores.tobytes() == score_column[expected].tobytes()
