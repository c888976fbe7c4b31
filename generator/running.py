"""One run: look whether the services are there, send, verify. Signals stop it in good order."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import aiohttp

from generator.client import client_session
from generator.encoding import CONTENT_TYPES
from generator.errors import UnreachableError, UnverifiableError, why
from generator.ledger import Ledger
from generator.options import SCORER_PATH, RunOptions
from generator.oracle import Verification
from generator.outcomes import complaint_of, read_problem
from generator.progress import shown
from generator.reporting import Report, report
from generator.sending import Sender
from generator.tally import Tally
from generator.verifying import MedianClient, verify
from generator.workload import FEATURES_PER_EVENT, Workload

_LEDGER_SLACK_SECONDS = 1.0
_KEY_REFUSED = "InvalidKeyException"  # TorchServe's name for it, with the status 400


async def run(options: RunOptions) -> Report:
    """Do the run.

    The first SIGINT or SIGTERM ends the sending; what is in flight and the verification still
    finish. A later one ends those too. Raises UnreachableError before anything was sent.
    """
    workload = Workload(options.workload)
    tally = Tally()
    async with contextlib.AsyncExitStack() as stack:
        scorer = await stack.enter_async_context(
            client_session(
                options.timeout_seconds,
                options.max_in_flight,
                options.token,
                CONTENT_TYPES[options.workload.format],
            )
        )
        state = await stack.enter_async_context(
            client_session(options.timeout_seconds, 1, options.state_token)
        )
        await _probe_scorer(scorer, options, workload)
        client = MedianClient(state, options.state_url)
        ledger = await _ledger(client, options) if options.verify else None
        sender = Sender(scorer, options, workload, tally, ledger)
        window = options.pace.window_seconds
        with _on_signals(sender.stop):
            async with shown(tally, options.rate, window, quiet=options.quiet):
                await sender.run()
            verification = None
            if ledger is not None:
                verification = await _verify(client, ledger, workload, tally)
        return report(options, tally, verification)


async def _verify(
    client: MedianClient, ledger: Ledger, workload: Workload, tally: Tally
) -> Verification:
    checking = asyncio.ensure_future(verify(client, ledger, workload, time.time()))
    doubtful = ledger.users_in_doubt
    with _on_signals(checking.cancel):
        try:
            return await checking
        except UnverifiableError as error:
            return Verification(users_in_doubt=doubtful, error=str(error))
        except asyncio.CancelledError:
            if not checking.cancelled():
                raise
            tally.interrupted = True
            return Verification(users_in_doubt=doubtful, error="interrupted while verifying")


@contextlib.contextmanager
def _on_signals(act: Callable[[], object]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call `act`, and nothing else, inside this block."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _probe_scorer(
    session: aiohttp.ClientSession, options: RunOptions, workload: Workload
) -> None:
    """Send one dry-run event. Overload (5xx) is the run's own business, anything else isn't."""
    url = options.url + SCORER_PATH
    body = workload.probe(time.time())
    try:
        async with session.post(url, data=body, headers={"X-Dry-Run": "1"}) as response:
            answer = await response.read()
            status = response.status
    except TimeoutError:
        raise UnreachableError(
            f"{url} did not answer within {options.timeout_seconds:g} s: "
            "see that TorchServe is up and its workers are ready, or give more --timeout."
        ) from None
    except (aiohttp.ClientError, OSError) as error:
        raise UnreachableError(
            f"{url} can't be reached ({why(error)}): "
            "start TorchServe there, or give its address with --url."
        ) from error
    if 400 <= status < 500 and status not in {408, 429}:
        problem = read_problem(answer)
        said = f"{status} {problem.name} {problem.sentence}".rstrip()
        fix = (
            "give its inference key with --token or --token-file."
            if problem.name == _KEY_REFUSED
            else "give the address of a TorchServe that has the model `scorer` with --url."
        )
        raise UnreachableError(f"{url} refuses a valid event ({said}): {fix}")
    if status == 200 and (complaint := complaint_of(answer)):
        raise UnreachableError(
            f"{url} skips the events this generator sends ({complaint}): "
            f"serve a model of {FEATURES_PER_EVENT} features."
        )


async def _ledger(client: MedianClient, options: RunOptions) -> Ledger:
    """Learn the window from the state service, so that older events may be forgotten."""
    try:
        items = await client.medians([f"{options.workload.user_prefix}-probe"])
    except UnverifiableError as error:
        raise UnreachableError(
            f"{error}: start the state service there, give its address with --state-url and its "
            "token with --state-token-file, or leave out --verify."
        ) from error
    if not items:
        raise UnreachableError(f"{options.state_url} answered no item for one user.")
    return Ledger(options.workload.users, items[0].window_seconds + _LEDGER_SLACK_SECONDS)
