"""The oracle tells right from wrong: each kind of wrong is made on purpose and must be found."""

import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.book import BLOCK_REQUESTS, Issued
from chaos.memory import Course, course_of
from chaos.oracle import Held, UserAnswer, Verdict, expected_answer, judge
from tests.chaos.chaos_support import NOW, answers_to, everything_held, picked, some_book, without

USERS, EVENTS, REQUESTS = 5, 4, 12


def sent(*, unacknowledged: int = 0) -> Issued:
    """Twelve requests, the last of them not acknowledged."""
    book = some_book(USERS, EVENTS)
    for number in range(REQUESTS):
        book.issue(NOW + number)
        if number < REQUESTS - unacknowledged:
            book.acknowledge(number)
    return book.issued()


def judged(issued: Issued, held: Held) -> Verdict:
    """Judge a service whose answers are those of what is on its disk."""
    return judge(issued, held, answers_to(held, USERS))


def test_when_every_event_is_there_once_nothing_is_wrong() -> None:
    issued = sent()
    verdict = judged(issued, everything_held(issued))
    assert verdict.right, verdict
    assert (verdict.events, verdict.users) == (REQUESTS * EVENTS, USERS)


def test_a_lost_event_is_found_on_the_disk_and_in_its_user_s_answer() -> None:
    issued = sent()
    held = everything_held(issued)
    verdict = judged(issued, without(held, 7))
    assert (verdict.lost, verdict.users_wrong, verdict.doubled, verdict.wrong) == (1, 1, 0, 0)
    assert not verdict.right
    user, timestamp = int(held.users[7]), float(held.timestamps[7])
    assert verdict.examples[0] == f"lost: the event of user {user} at {timestamp}"


def test_a_doubled_event_is_found_on_the_disk_and_in_its_user_s_answer() -> None:
    issued = sent()
    held = everything_held(issued)
    verdict = judged(issued, picked(held, *range(len(held.users)), 7))
    assert (verdict.lost, verdict.users_wrong, verdict.doubled, verdict.wrong) == (0, 1, 1, 0)
    assert not verdict.right


def test_a_wrong_score_is_found_though_it_is_wrong_in_its_last_bit_alone() -> None:
    issued = sent()
    held = everything_held(issued)
    held.scores[7] = np.nextafter(held.scores[7], np.inf)
    verdict = judge(issued, held, answers_to(everything_held(issued), USERS))
    assert (verdict.lost, verdict.users_wrong, verdict.doubled, verdict.wrong) == (0, 0, 0, 1)
    assert not verdict.right


def test_an_event_that_nobody_sent_is_found() -> None:
    issued = sent()
    held = everything_held(issued)
    held.timestamps[7] = NOW + 500
    verdict = judged(issued, held)
    assert verdict.foreign == 1
    assert not verdict.right


def test_an_event_under_another_user_is_lost_to_its_own() -> None:
    issued = sent()
    held = everything_held(issued)
    held.users[7] = (held.users[7] + 1) % USERS
    verdict = judged(issued, held)
    assert (verdict.lost, verdict.foreign, verdict.users_wrong) == (1, 1, 2)


@pytest.mark.parametrize("counted", [True, False])
def test_a_request_never_acknowledged_may_be_there_or_not(*, counted: bool) -> None:
    issued = sent(unacknowledged=1)
    held = everything_held(issued)
    if not counted:
        held = without(held, *np.flatnonzero(held.timestamps >= NOW + REQUESTS - 1))
    verdict = judged(issued, held)
    assert verdict.right, verdict
    assert (verdict.unacknowledged_requests, verdict.of_them_counted) == (1, counted)


def test_a_request_never_acknowledged_must_not_be_there_in_part() -> None:
    issued = sent(unacknowledged=1)
    held = everything_held(issued)
    torn = np.flatnonzero(held.timestamps >= NOW + REQUESTS - 1)[0]
    verdict = judged(issued, without(held, int(torn)))
    assert (verdict.torn, verdict.lost, verdict.users_wrong) == (1, 0, 0)
    assert not verdict.right


@pytest.mark.parametrize("field", ["count", "min", "max", "median"])
def test_a_wrong_answer_about_a_user_is_found_though_the_disk_is_right(field: str) -> None:
    issued = sent()
    held = everything_held(issued)
    answers = answers_to(held, USERS)
    answers[2] = replace(answers[2], **{field: getattr(answers[2], field) + 1})
    verdict = judge(issued, held, answers)
    assert verdict.users_wrong == 1
    assert not verdict.right


def test_a_service_that_holds_nothing_has_lost_everything() -> None:
    issued = sent()
    nothing = without(everything_held(issued), *range(REQUESTS * EVENTS))
    verdict = judged(issued, nothing)
    assert (verdict.lost, verdict.users_wrong) == (REQUESTS * EVENTS, USERS)


def test_events_that_cannot_be_told_apart_are_refused() -> None:
    issued = sent()
    issued.timestamps[1] = issued.timestamps[0]
    with pytest.raises(ValueError, match="same timestamp"):
        judged(issued, everything_held(issued))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_an_expected_answer_is_what_the_statistics_module_says(scores: list[float]) -> None:
    answer = expected_answer(np.sort(np.array(scores, np.float64)))
    if not scores:
        assert answer == UserAnswer(0, None, None, None)
    else:
        expected = UserAnswer(len(scores), min(scores), max(scores), statistics.median(scores))
        assert answer == expected


def test_a_book_gives_every_event_a_timestamp_of_its_own_though_the_clock_stands_still() -> None:
    book = some_book()
    for _ in range(3 * BLOCK_REQUESTS):
        book.issue(NOW)
    timestamps = book.issued().timestamps
    assert len(np.unique(timestamps)) == 3 * BLOCK_REQUESTS * 4


def test_a_book_forgets_whole_blocks_that_are_old_and_acknowledged() -> None:
    book = some_book()
    for number in range(3 * BLOCK_REQUESTS):
        book.issue(NOW + number)
        if number != BLOCK_REQUESTS:  # one of the second block is still on its way
            book.acknowledge(number)
    book.forget(NOW + 2 * BLOCK_REQUESTS)
    kept = np.unique(book.issued().request)
    assert kept.tolist() == list(range(BLOCK_REQUESTS, 3 * BLOCK_REQUESTS))


def test_a_book_sends_what_it_expects() -> None:
    book, again = some_book(), some_book()
    request = book.issue(NOW)
    assert request.body == again.issue(NOW).body
    assert request.scores.tolist() == book.issued().scores.tolist()
    assert book.user_of(book.user_id(3)) == 3
    assert book.user_of("somebody-3") == book.user_of("u-") == book.user_of("u-x") == -1


def test_a_course_takes_samples_at_its_quarters() -> None:
    course = course_of("it", [float(number) for number in range(9)] + [8.0, 7.0, 6.0, 5.0])
    assert course == Course("it", 0.0, 3.0, 6.0, 8.0, 5.0, 8.0)
    assert course_of("it", [4.0]) == Course("it", 4.0, 4.0, 4.0, 4.0, 4.0, 4.0)
