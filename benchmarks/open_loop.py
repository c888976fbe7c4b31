"""Load at a fixed rate, whatever the answers do, paced as the generator paces it.

The generator itself judges answers and so cannot drive a service that only echoes; here an answer
below 400 is enough, so that every contender is measured by the same means.
"""

import asyncio
from collections import Counter

import aiohttp

from benchmarks.bodies import Bodies
from benchmarks.load import Load
from generator.client import client_session
from generator.errors import why
from generator.latency import LatencyHistogram
from generator.pacing import Pace

_MAX_IN_FLIGHT = 256
_TIMEOUT_SECONDS = 10.0


def open_loop(url: str, bodies: Bodies, events_per_second: float, seconds: float) -> Load:
    """Send so many events a second; latency counts from when a request was due.

    At most 256 requests are under way; what is due and not sent when the time is over never is.
    """
    pace = Pace.for_events(events_per_second, seconds, bodies.events)
    return asyncio.run(_run(url, bodies, pace))


async def _run(url: str, bodies: Bodies, pace: Pace) -> Load:
    loop = asyncio.get_running_loop()
    latencies, errors = LatencyHistogram(), Counter[str]()
    slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
    answered = sent = 0
    async with client_session(_TIMEOUT_SECONDS, _MAX_IN_FLIGHT, None) as session:
        started_at = loop.time()

        async def deliver(index: int) -> None:
            nonlocal answered
            try:
                body = bodies.encoded[index % len(bodies.encoded)]
                async with session.post(url, data=body, headers=bodies.headers) as response:
                    await response.read()
                if response.status >= 400:
                    errors[f"status {response.status}"] += 1
                    return
                answered += 1
                latencies.record(loop.time() - started_at - pace.due_seconds(index))
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                errors[why(error)] += 1
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group:
            while sent < pace.total:
                await asyncio.sleep(started_at + pace.due_seconds(sent) - loop.time())
                await slots.acquire()
                if loop.time() - started_at > pace.window_seconds:
                    slots.release()
                    break
                group.create_task(deliver(sent))
                sent += 1
        elapsed = max(loop.time() - started_at, pace.window_seconds)
    found = latencies.summary()
    return Load(
        answered, elapsed, found.p50 or 0.0, found.p99 or 0.0, dict(errors), pace.total - sent
    )
