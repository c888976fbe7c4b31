"""A state service that runs, held to every word of its openapi.yaml by schemathesis."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.state_service.state_support import REPOSITORY, launched

HOOKS = "tests.fuzzing.schemathesis_hooks"
EXAMPLES = "10"  # an operation; the cases that schemathesis works out by itself come on top


async def _schemathesis(url: str, folder: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", f"{url}/openapi.json", "--url", url),
        # TorchServe's; and endless, a message a second: tests/state_service/test_state_streams.py.
        *("--exclude-path", "/predictions/scorer", "--exclude-path", "/events"),
        *("--exclude-path", "/ingest"),  # what TorchServe answers, of which there is none
        # See the hooks; and a user who has been forgotten is asked for like any unknown one.
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance,use_after_free"),
        *("--max-examples", EXAMPLES, "--seed", "1", "--generation-deterministic"),
        *("--no-color", "--continue-on-failure"),
        cwd=folder,  # it leaves files behind
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(REPOSITORY)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.timeout(180)
async def test_every_request_that_the_contract_suggests_is_answered_as_it_says(
    tmp_path: Path,
) -> None:
    async with launched(tmp_path) as service:
        status, said = await _schemathesis(service.url, tmp_path)
        _, log = await service.stop(signal.SIGTERM)
    assert status == 0, said
    found = re.search(r"(\d+) generated", said)
    assert found, said
    assert int(found[1]) > 200, "too few cases: were operations left out?"
    assert "request failed" not in log
    assert '"level": "error"' not in log
