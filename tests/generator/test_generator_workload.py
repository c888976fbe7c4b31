"""The workload is a pure function of the seed."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from generator.workload import Workload, WorkloadOptions

OPTIONS = WorkloadOptions(seed=7, users=100, batch=10, user_prefix="p")


def all_users(options: WorkloadOptions, requests: int) -> np.ndarray[tuple[int], np.dtype[np.int_]]:
    workload = Workload(options)
    drawn = np.concatenate([workload.request(i, 0.0).users for i in range(requests)])
    return np.bincount(drawn, minlength=options.users)


def test_the_same_seed_gives_the_same_bytes_in_any_order() -> None:
    forwards, backwards = Workload(OPTIONS), Workload(OPTIONS)
    indices = [0, 1, 1637, 1638, 1639, 5000]  # a block has 1638 requests of 10
    first = [forwards.request(i, 1e9).body for i in indices]
    second = [backwards.request(i, 1e9).body for i in reversed(indices)]
    assert first == second[::-1]
    assert len(set(first)) == len(indices)


def test_another_seed_gives_other_users_and_features() -> None:
    mine = Workload(OPTIONS).request(0, 1e9)
    other = Workload(replace(OPTIONS, seed=8)).request(0, 1e9)
    assert mine.body != other.body
    assert mine.users.tolist() != other.users.tolist()


def test_time_and_disorder_change_neither_users_nor_features() -> None:
    def content(options: WorkloadOptions, now: float) -> list[tuple[str, list[float]]]:
        events = msgspec.json.decode(Workload(options).request(3, now).body)["events"]
        return [(event["user_id"], event["features"]) for event in events]

    assert content(OPTIONS, 1e9) == content(replace(OPTIONS, disorder_seconds=60), 2e9)


def test_the_body_says_what_the_columns_say() -> None:
    workload = Workload(replace(OPTIONS, disorder_seconds=5))
    request = workload.request(2, 1_700_000_000.25)
    events = msgspec.json.decode(request.body)["events"]
    assert [event["user_id"] for event in events] == [
        workload.user_id(user) for user in request.users.tolist()
    ]
    assert [event["timestamp"] for event in events] == request.timestamps.tolist()
    assert all(len(event["features"]) == 3 for event in events)
    assert all(set(event) == {"user_id", "timestamp", "features"} for event in events)


def test_disorder_shifts_timestamps_back_by_at_most_that_much() -> None:
    workload = Workload(replace(OPTIONS, disorder_seconds=5))
    stamps = np.concatenate([workload.request(i, 1000.0).timestamps for i in range(100)])
    assert 995 <= stamps.min() < 996
    assert 999 < stamps.max() <= 1000


def test_without_disorder_every_event_carries_the_time_of_sending() -> None:
    assert set(Workload(OPTIONS).request(0, 1000.5).timestamps.tolist()) == {1000.5}


def test_zipf_draws_the_first_user_twice_as_often_as_the_second() -> None:
    counts = all_users(OPTIONS, 10_000)
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.05)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
    assert counts.min() > 0


def test_uniform_draws_every_user_about_equally_often() -> None:
    counts = all_users(replace(OPTIONS, popularity="uniform"), 10_000)
    assert counts.min() > 800
    assert counts.max() < 1200


def test_features_are_standard_normal() -> None:
    workload = Workload(replace(OPTIONS, batch=10_000))
    events = msgspec.json.decode(workload.request(0, 0.0).body)["events"]
    features = np.array([event["features"] for event in events])
    assert features.mean(axis=0) == pytest.approx([0, 0, 0], abs=0.05)
    assert features.std(axis=0) == pytest.approx([1, 1, 1], abs=0.05)
