"""What the generator encodes is what the handler reads, in every format."""

import numpy as np
import pytest

from generator.encoding import CONTENT_TYPES, FORMATS, Format
from generator.workload import Workload, WorkloadOptions
from handler.events import EventColumns
from handler.reading import ReadRequest, Request, read_requests
from handler.settings import HandlerSettings
from tests.contract.contract_support import SPEC


def _read(body: bytes, form: Format) -> EventColumns:
    request = Request(body, {"content-type": CONTENT_TYPES[form]})
    (read,) = read_requests([request], HandlerSettings())
    assert isinstance(read, ReadRequest), read
    return read.columns


@pytest.mark.parametrize("form", FORMATS)
def test_a_workload_is_read_as_it_was_drawn(form: Format) -> None:
    options = WorkloadOptions(
        seed=1, users=50, batch=20, user_prefix="é", disorder_seconds=5, format=form
    )
    workload = Workload(options)
    request = workload.request(3, 1_795_000_000.123)
    columns = _read(request.body, form)
    assert (columns.total, columns.errors) == (20, [])
    assert columns.user_ids == [workload.user_id(user) for user in request.users.tolist()]
    assert columns.timestamps.tolist() == request.timestamps.tolist()
    (probed,) = _read(workload.probe(1.5), form).user_ids
    assert probed == "é-probe"


def test_every_format_carries_the_same_features() -> None:
    features = []
    for form in FORMATS:
        workload = Workload(
            WorkloadOptions(seed=1, users=50, batch=20, user_prefix="p", format=form)
        )
        features.append(_read(workload.request(0, 1.0).body, form).features)
    assert np.array_equal(features[0], features[1])
    assert np.array_equal(features[0], features[2])


def test_the_formats_are_those_of_the_contract() -> None:
    content = SPEC["paths"]["/predictions/scorer"]["post"]["requestBody"]["content"]
    assert set(content) == set(CONTENT_TYPES.values())
