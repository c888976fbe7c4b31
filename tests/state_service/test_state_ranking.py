"""Rankings: whole, in order, page by page, whatever the values and however equal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_service.errors import InvalidRequestError
from state_service.listing import UsersQuestion, page_token, read_users_question
from state_service.ranking import By, Order, PageQuestion, Place, Ranked, Ranking, RankingQuestion
from state_service.settings import Settings
from state_service.windows import WindowRules, Windows

NOW = 1_700_000_000.0
SCORES = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 1e300])  # few, so that many are equal
EVENTS = st.lists(st.tuples(st.sampled_from("abcdefgh"), SCORES), max_size=60)
BY: st.SearchStrategy[By] = st.sampled_from(["count", "median"])
ORDER: st.SearchStrategy[Order] = st.sampled_from(["asc", "desc"])


def ranking_of(events: list[tuple[str, float]], by: By) -> Ranking:
    windows = Windows(WindowRules(memtable_events=16))
    for user_id, score in events:
        windows.ingest([user_id], np.array([NOW]), np.array([score]), NOW)
    return RankingQuestion(by, windows.all_medians_question(NOW)).answer()


def expected(events: list[tuple[str, float]], by: By, order: Order) -> list[tuple[str, float, int]]:
    scores: dict[str, list[float]] = {}
    for user_id, score in events:
        scores.setdefault(user_id, []).append(score)
    rows = [(user_id, float(np.median(of)) + 0.0, len(of)) for user_id, of in scores.items()]
    sign = 1 if order == "asc" else -1
    column = 2 if by == "count" else 1
    return sorted(rows, key=lambda row: (sign * row[column], row[0]))


def plain(users: list[Ranked]) -> list[tuple[str, float, int]]:
    return [(user.user_id, user.median, user.count) for user in users]


@given(EVENTS, BY, ORDER, st.integers(1, 9))
def test_page_after_page_lists_everybody_once_and_in_order(
    events: list[tuple[str, float]], by: By, order: Order, limit: int
) -> None:
    ranking = ranking_of(events, by)
    listed: list[Ranked] = []
    place: Place | None = None
    while page := ranking.page(limit, order, place):
        assert len(page) <= limit
        listed += page
        place = ranking.place_of(page[-1])
    assert plain(listed) == expected(events, by, order)
    assert len(ranking) == len(listed)


@given(EVENTS, BY, ORDER, st.integers(1, 9))
def test_the_first_few_are_as_good_as_those_of_the_page(
    events: list[tuple[str, float]], by: By, order: Order, limit: int
) -> None:
    ranking = ranking_of(events, by)
    first, page = ranking.first(limit, order), ranking.page(limit, order)
    assert [ranking.place_of(user).value for user in first] == [
        ranking.place_of(user).value for user in page
    ]
    assert {*plain(first)} <= {*expected(events, by, order)}


@given(EVENTS, BY, ORDER, st.integers(1, 9))
def test_users_with_fewer_scores_are_left_out(
    events: list[tuple[str, float]], by: By, order: Order, least: int
) -> None:
    users = PageQuestion(ranking_of(events, by), 100, order, None, least).answer()
    assert plain(users) == [row for row in expected(events, by, order) if row[2] >= least]


@given(BY, ORDER, st.integers(1, 10**7), st.floats(allow_nan=False, allow_infinity=False),
       st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable()))  # fmt: skip
def test_a_token_leads_to_the_place_it_was_made_of(
    by: By, order: Order, least: int, value: float, user_id: str
) -> None:
    place = Place(value, user_id)
    token = page_token(UsersQuestion(5, by, order, None, least), place)
    assert read_users_question({"page_token": token}, Settings()) == UsersQuestion(
        100, by, order, place, least
    )


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"limit": "1_0"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"min_count": "0"}, "min_count"),
        ({"min_count": "1.5"}, "min_count"),
        ({"sort": "name"}, "sort"),
        ({"sort": ""}, "sort"),
        ({"order": "up"}, "order"),
        ({"page_token": ""}, "page_token"),
        ({"page_token": "ü"}, "page_token"),
        ({"page_token": "AAAA"}, "page_token"),
        ({"page_token": "W10"}, "page_token"),
    ],
)
def test_what_cannot_be_understood_is_named(query: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        read_users_question(query, Settings())


def test_a_token_of_another_list_is_refused() -> None:
    token = page_token(UsersQuestion(5, "count", "desc", None, 2), Place(3.0, "u"))
    for other in ({"sort": "median"}, {"order": "asc"}, {"min_count": "3"}):
        with pytest.raises(InvalidRequestError, match="another"):
            read_users_question({"page_token": token} | other, Settings())
    same = {"sort": "count", "order": "desc", "min_count": "2", "page_token": token}
    assert read_users_question(same, Settings()).after == Place(3.0, "u")


def test_users_with_many_scores_are_answered_for_exactly_too() -> None:
    rng = np.random.default_rng(1)
    windows = Windows(WindowRules(memtable_events=4_000))
    scores = {name: rng.normal(size=count) for name, count in (("a", 9_001), ("b", 3_000))}
    for name, of in scores.items():
        for part in np.array_split(of, 5):
            windows.ingest([name] * len(part), NOW - rng.random(len(part)) * 299, part, NOW)
            windows.next_work()
    windows.ingest(["c"], np.array([NOW]), np.array([0.5]), NOW)
    ranking = RankingQuestion("count", windows.all_medians_question(NOW)).answer()
    assert plain(ranking.page(3, "desc")) == [
        ("a", float(np.median(scores["a"])), 9_001),
        ("b", float(np.median(scores["b"])), 3_000),
        ("c", 0.5, 1),
    ]
    for user in ranking.page(3, "desc"):
        assert user.newest_timestamp == windows.summary(user.user_id, NOW).newest_timestamp
