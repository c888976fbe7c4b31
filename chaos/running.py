"""One run: start the stack, load it, break it round by round, then compare."""

import asyncio
import contextlib
import math
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from chaos.archives import ARCHIVES, build_store, model
from chaos.book import Book
from chaos.client import Load
from chaos.disk import SmallDisk, small_disk
from chaos.evidence import EvidenceError, ask_users, dump, wait_until_quiet
from chaos.faults import Injector, NotInjectedError
from chaos.management import Management
from chaos.memory import Memory
from chaos.oracle import judge
from chaos.proxy import Proxy
from chaos.reporting import Injected, Report
from chaos.schedule import Fault, Kind, Round, deal
from chaos.target import Target, TargetError, free_ports
from generator.client import client_session

_READY_SECONDS = 120.0
_RETURN_SECONDS = 60.0
_POLL_SECONDS = 0.1
_ATTEMPT_SECONDS = 5.0  # far above the handler's own patience of 2 s
_ANSWER_SECONDS = 60.0  # to a question, or an order: registering waits for the first worker
_DISK_MIB = 1024
_HISTORY_SECONDS = 120.0  # how long after the end every event of the window can still be asked for
_PROGRESS_SECONDS = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What one run is asked to do; a run with `soak_seconds` has no faults."""

    seed: int
    rounds: int
    seconds_between: float
    kinds: tuple[Kind, ...]
    soak_seconds: float
    events_per_second: float
    events_per_request: int
    users: int
    senders: int
    workers: int
    window_seconds: float
    settings: dict[str, str]
    tmpfs: bool
    keep: Path | None  # folder for the stack's files, logs among them


@dataclass(frozen=True, slots=True)
class _Scene:
    """All that takes part in a run."""

    options: Options
    report: Report
    target: Target
    proxy: Proxy
    disk: SmallDisk | None
    book: Book
    load: Load
    session: aiohttp.ClientSession  # for questions, and for the management API
    tell: Tell


async def run(options: Options, tell: Tell) -> Report:
    """Do the run. Raises `TargetError` when the stack does not start at all."""
    report = Report(options.seed, events_per_request=options.events_per_request)
    began = time.monotonic()
    async with _scene(options, report, tell) as scene:
        tell("starting the stack")
        scene.target.start()
        await _until_ready(scene)
        loading = asyncio.create_task(scene.load.run())
        try:
            if options.soak_seconds:
                await _soak(scene, loading)
            else:
                await _rounds(scene, loading)
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
async def _scene(options: Options, report: Report, tell: Tell) -> AsyncIterator[_Scene]:
    run_name = secrets.token_hex(4)
    tell("packing the model in two versions")
    score = await asyncio.to_thread(model)
    book = Book(options.seed, options.users, options.events_per_request, score, f"c{run_name}")
    async with contextlib.AsyncExitStack() as exits:
        folder = options.keep or Path(
            exits.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        )
        folder = folder.resolve()
        var = folder / "var"
        var.mkdir(parents=True, exist_ok=True)
        wanted = options.tmpfs and Kind.FULL_DISK in options.kinds and not options.soak_seconds
        disk = exits.enter_context(small_disk(var, _DISK_MIB)) if wanted else None
        if options.keep is not None and disk is not None:  # its disk goes when the run ends
            exits.callback(shutil.copytree, var, folder / "kept", dirs_exist_ok=True)
        store = folder / "store"
        await asyncio.to_thread(build_store, store)
        ports = free_ports()
        state_port = ports.addresses.state.port
        proxy = await exits.enter_async_context(Proxy(state_port + 1, state_port))
        settings = {
            "HANDLER_STATE_URL": proxy.url,
            "STATE_WINDOW_SECONDS": str(options.window_seconds),
            "STATE_HISTORY_SECONDS": str(_HISTORY_SECONDS),
            "TS_DEFAULT_WORKERS_PER_MODEL": str(options.workers),
            **options.settings,
        }
        target = exits.enter_context(Target(ports, var, store, ARCHIVES.values(), settings))
        sending = await exits.enter_async_context(
            client_session(_ATTEMPT_SECONDS, options.senders, None)
        )
        # Not as a client of events: TorchServe's management would read JSON where there is none.
        session = await exits.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_ANSWER_SECONDS))
        )
        load = Load(
            sending,
            target.prediction_url,
            book,
            requests_per_second=options.events_per_second / options.events_per_request,
            senders=options.senders,
            catch_up_seconds=math.inf if options.soak_seconds else 0.0,
            run=run_name,
        )
        report.load = load.tally
        yield _Scene(options, report, target, proxy, disk, book, load, session, tell)


async def _until_ready(scene: _Scene) -> None:
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


async def _rounds(scene: _Scene, loading: asyncio.Task[None]) -> None:
    options, report = scene.options, scene.report
    kinds = [kind for kind in options.kinds if kind is not Kind.FULL_DISK or scene.disk]
    if scene.disk is None and Kind.FULL_DISK in options.kinds:
        scene.tell("no disk can be mounted here to be filled: file-limit stands in for it")
    management = Management(scene.session, scene.target.addresses.management.url, ARCHIVES)
    injector = Injector(scene.target, scene.proxy, management, scene.disk, options.workers)
    rounds = deal(options.seed, options.rounds, kinds, options.seconds_between)
    for number, each in enumerate(rounds, 1):
        await asyncio.sleep(each.pause_seconds)
        began = time.monotonic()
        report.load.round_outage_seconds = 0.0
        await asyncio.gather(*(_inject(injector, fault, report) for fault in each.faults))
        report.rounds = number
        ended = time.monotonic()
        back = await _until_back(scene, loading)
        for kind in {fault.kind.value for fault in each.faults} & report.faults.keys():
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


async def _until_back(scene: _Scene, loading: asyncio.Task[None]) -> float:
    """Wait until a request is acknowledged again; return when. Raises `TargetError` after 60 s."""
    began = time.monotonic()
    while scene.load.tally.acknowledged_at < began:
        if loading.done():
            await loading  # raises what ended it
        if not scene.target.runs():
            scene.tell("the stack has ended; starting it again")
            scene.target.start()
        if time.monotonic() > began + _RETURN_SECONDS:
            raise TargetError(f"nothing is acknowledged {_RETURN_SECONDS:.0f} s after the round")
        await asyncio.sleep(_POLL_SECONDS)
    return scene.load.tally.acknowledged_at


def _progress(scene: _Scene, number: int, each: Round, lasted: float, back: float) -> str:
    load = scene.load.tally
    return (
        f"{number:>4}/{scene.options.rounds}  {each} (took {lasted:.1f} s, back after {back:.1f} s;"
        f" {load.acknowledged:,} acknowledged, {load.retries:,} retries)"
    )


async def _soak(scene: _Scene, loading: asyncio.Task[None]) -> None:
    """Let the load run, with an eye on the memory of each process."""
    memory = Memory(scene.target.resident_mib)
    watching = asyncio.create_task(memory.watch())
    keep_seconds = scene.options.window_seconds + _HISTORY_SECONDS
    began = time.monotonic()
    try:
        while (elapsed := time.monotonic() - began) < scene.options.soak_seconds:
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


async def _settle(scene: _Scene, loading: asyncio.Task[None]) -> None:
    """Send no more; wait until all that was sent is acknowledged, and until all is quiet."""
    scene.load.stop()
    await asyncio.wait([loading], timeout=_RETURN_SECONDS)
    if loading.done():
        await loading
    try:
        async with asyncio.timeout(_RETURN_SECONDS):
            await wait_until_quiet(scene.session, scene.target.addresses.state.url)
    except TimeoutError:
        scene.report.errors.append(
            f"not ready, or a spool not empty, {_RETURN_SECONDS:.0f} s after the load's end"
        )


async def _verify(scene: _Scene) -> None:
    """Compare what was sent with what is answered and with what is on disk."""
    scene.tell("comparing every event and every user")
    at = time.time()
    oldest = at - scene.options.window_seconds
    try:
        answers = await ask_users(scene.session, scene.target.addresses.state.url, scene.book, at)
        held = await dump(scene.target.database, scene.book, oldest)
    except (EvidenceError, aiohttp.ClientError, OSError, TimeoutError) as error:
        scene.report.errors.append(f"what is held cannot be compared: {error!r}")
        return
    scene.report.verdict = judge(scene.book.issued(oldest), held, answers)


def _stop(scene: _Scene) -> None:
    if scene.target.runs() and (status := scene.target.stop()):
        scene.report.errors.append(f"the stack ends with status {status} when it is asked to stop")
