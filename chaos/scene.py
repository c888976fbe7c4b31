"""All that takes part in a run, put together: the stack, the proxy, the disk, the load."""

import asyncio
import contextlib
import math
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from chaos.archives import ARCHIVES, build_store, model
from chaos.book import Book
from chaos.client import Load
from chaos.disk import SmallDisk, small_disk
from chaos.proxy import Proxy
from chaos.reporting import Report
from chaos.schedule import Kind
from chaos.target import Target, free_ports
from generator.client import client_session

HISTORY_SECONDS = 120.0  # how long after the end every event of the window can still be asked for
_ATTEMPT_SECONDS = 5.0  # far above the handler's own patience of 2 s
_ANSWER_SECONDS = 60.0  # to a question, or an order: registering waits for the first worker
_DISK_MIB = 512

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
    return_seconds: float  # how long the stack may take to come back after a round
    settings: dict[str, str]
    tmpfs: bool
    keep: Path | None  # folder for the stack's files, logs among them


@dataclass(frozen=True, slots=True)
class Scene:
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
    stopped: asyncio.Event = field(default_factory=asyncio.Event)  # by a signal


@contextlib.asynccontextmanager
async def open_scene(options: Options, report: Report, tell: Tell) -> AsyncIterator[Scene]:
    """Put everything together, start nothing but the proxy; in the end, end everything."""
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
            "STATE_HISTORY_SECONDS": str(HISTORY_SECONDS),
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
        yield Scene(options, report, target, proxy, disk, book, load, session, tell)
