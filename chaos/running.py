"""One run: start the stack, load it, break it round by round, then compare."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator

import aiohttp

from chaos.archives import ARCHIVES
from chaos.evidence import EvidenceError, ask_users, dump, wait_until_quiet
from chaos.faults import Injector, NotInjectedError
from chaos.management import Management
from chaos.memory import Memory
from chaos.oracle import Verdict, judge
from chaos.reporting import Injected, Report
from chaos.scene import HISTORY_SECONDS, Options, Scene, Tell, open_scene
from chaos.schedule import Fault, Kind, Round, deal
from chaos.target import TargetError

_READY_SECONDS = 120.0
_SETTLE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_PROGRESS_SECONDS = 10.0
_COMPARE_AGAIN_SECONDS = 2.0


async def run(options: Options, tell: Tell) -> Report:
    """Do the run. Raises `TargetError` when the stack does not start in the first place."""
    report = Report(options.seed, events_per_request=options.events_per_request)
    began = time.monotonic()
    async with open_scene(options, report, tell) as scene, _stopped_by_signals(scene):
        tell("starting the stack")
        scene.target.start()
        await _until_ready(scene)
        loading = asyncio.create_task(scene.load.run())
        try:
            try:
                if options.soak_seconds:
                    await _soak(scene, loading)
                else:
                    await _rounds(scene, loading)
            except TargetError as error:
                report.errors.append(str(error))
            await _settle(scene, loading)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        await _verify(scene)
        _stop(scene)
        report.stack_starts = scene.target.starts
    report.seconds = time.monotonic() - began
    return report


@contextlib.asynccontextmanager
async def _stopped_by_signals(scene: Scene) -> AsyncIterator[None]:
    """Let the first SIGINT or SIGTERM end the faults and the load, the next one everything."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    assert this is not None

    def stop() -> None:
        if scene.stopped.is_set():
            this.cancel()
        scene.stopped.set()
        scene.tell("stopping; once more to stop at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _until_ready(scene: Scene) -> None:
    """Wait until a prediction is answered. Raises `TargetError` with the end of the log."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with scene.session.post(
                scene.target.prediction_url, json=[], timeout=aiohttp.ClientTimeout(5)
            ) as response:
                if response.status == 200:
                    return
        if not scene.target.runs() or time.monotonic() > deadline:
            said = scene.target.log.read_text(encoding="utf-8", errors="replace")
            raise TargetError("\n".join(["the stack does not start:", *said.splitlines()[-15:]]))
        await asyncio.sleep(_POLL_SECONDS)


# --- breaking -------------------------------------------------------------------------------------


async def _rounds(scene: Scene, loading: asyncio.Task[None]) -> None:
    options, report = scene.options, scene.report
    kinds = [kind for kind in options.kinds if kind is not Kind.FULL_DISK or scene.disk]
    if scene.disk is None and Kind.FULL_DISK in options.kinds:
        scene.tell("no disk can be mounted here to be filled: file-limit stands in for it")
    management = Management(scene.session, scene.target.addresses.management.url, ARCHIVES)
    injector = Injector(scene.target, scene.proxy, management, scene.disk, options.workers)
    rounds = deal(options.seed, options.rounds, kinds, options.seconds_between)
    for number, each in enumerate(rounds, 1):
        if scene.stopped.is_set():
            return
        await asyncio.sleep(each.pause_seconds)
        began = time.monotonic()
        report.load.round_outage_seconds = 0.0
        await asyncio.gather(*(_inject(injector, fault, report) for fault in each.faults))
        report.rounds = number
        ended = time.monotonic()
        back = await _until_back(scene, loading)
        if len(each.faults) == 1 and (kind := each.faults[0].kind.value) in report.faults:
            worst = report.faults[kind].longest_outage_seconds
            report.faults[kind].longest_outage_seconds = max(
                worst, report.load.round_outage_seconds
            )
        report.slowest_return_seconds = max(report.slowest_return_seconds, back - ended)
        scene.tell(_progress(scene, number, each, ended - began, back - ended))


async def _inject(injector: Injector, fault: Fault, report: Report) -> None:
    try:
        await injector.inject(fault)
    except NotInjectedError as error:
        report.not_injected.append(f"{fault}: {error}")
    else:
        report.faults.setdefault(fault.kind.value, Injected()).times += 1


async def _until_back(scene: Scene, loading: asyncio.Task[None]) -> float:
    """Wait until a request is acknowledged again; return when. Raises `TargetError` in the end."""
    began, patience = time.monotonic(), scene.options.return_seconds
    while scene.load.tally.acknowledged_at < began:
        if loading.done():
            await loading  # raises what ended it
        if not scene.target.runs():
            scene.tell("the stack has ended; starting it again")
            scene.target.start()
        if time.monotonic() > began + patience:
            raise TargetError(f"nothing is acknowledged {patience:.0f} s after the round")
        await asyncio.sleep(_POLL_SECONDS)
    return scene.load.tally.acknowledged_at


def _progress(scene: Scene, number: int, each: Round, lasted: float, back: float) -> str:
    load = scene.load.tally
    return (
        f"{number:>4}/{scene.options.rounds}  {each} (took {lasted:.1f} s, back after {back:.1f} s;"
        f" {load.acknowledged:,} acknowledged, {load.retries:,} retries)"
    )


async def _soak(scene: Scene, loading: asyncio.Task[None]) -> None:
    """Let the load run, with an eye on the memory of each process."""
    memory = Memory(scene.target.resident_mib)
    watching = asyncio.create_task(memory.watch())
    keep_seconds = scene.options.window_seconds + HISTORY_SECONDS
    began = time.monotonic()
    try:
        while (
            elapsed := time.monotonic() - began
        ) < scene.options.soak_seconds and not scene.stopped.is_set():
            left = scene.options.soak_seconds - elapsed
            await asyncio.wait([loading], timeout=min(_PROGRESS_SECONDS, left))
            if loading.done():
                await loading
            scene.book.forget(time.time() - keep_seconds)
            scene.tell(
                f"{time.monotonic() - began:>6.0f} s  "
                f"{scene.load.tally.acknowledged * scene.book.events:,} events acknowledged"
            )
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    scene.report.memory = memory.courses()


# --- looking --------------------------------------------------------------------------------------


async def _settle(scene: Scene, loading: asyncio.Task[None]) -> None:
    """Send no more; wait until all that was sent is acknowledged, and until all is quiet."""
    scene.load.stop()
    await asyncio.wait([loading], timeout=_SETTLE_SECONDS)
    if loading.done():
        await loading
    try:
        async with asyncio.timeout(_SETTLE_SECONDS):
            await wait_until_quiet(scene.session, scene.target.addresses.state.url)
    except TimeoutError:
        scene.report.errors.append(
            f"not ready, or a spool not empty, {_SETTLE_SECONDS:.0f} s after the load's end"
        )


async def _verify(scene: Scene) -> None:
    """Compare what was sent with what is answered and with what is on disk.

    What was answered "spooled" is given its time: the handlers may be about to try again.
    """
    scene.tell("comparing every event and every user")
    deadline = time.monotonic() + _SETTLE_SECONDS
    try:
        while True:
            scene.report.verdict = verdict = await _compare(scene)
            incomplete = verdict.lost or verdict.users_wrong
            if not (incomplete and scene.load.tally.recorded["spooled"]):
                return
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(_COMPARE_AGAIN_SECONDS)
    except (EvidenceError, aiohttp.ClientError, OSError, TimeoutError) as error:
        scene.report.errors.append(f"what is held cannot be compared: {error!r}")


async def _compare(scene: Scene) -> Verdict:
    at = time.time()
    oldest = at - scene.options.window_seconds
    state_url = scene.target.addresses.state.url
    answers = await ask_users(scene.session, state_url, scene.book, at)
    held = await dump(scene.target.database, scene.book, oldest)
    return judge(scene.book.issued(oldest), held, answers)


def _stop(scene: Scene) -> None:
    if scene.target.runs() and (status := scene.target.stop()):
        scene.report.errors.append(f"the stack ends with status {status} when it is asked to stop")
