"""`python -m state_service`: serve until SIGTERM or Ctrl-C, then snapshot and leave.

With `check`, `dump` or `backup` as its first word it looks at a database instead: see `commands`.
"""

import asyncio
import gc
import os
import signal
import sys

import structlog
from aiohttp import web

from state_service.access import GUARD, Guard
from state_service.app import create_app
from state_service.app_keys import BACKGROUND, SERVICE
from state_service.commands import COMMANDS, run_command
from state_service.connections import HEARD, KEEP_ALIVE_SECONDS, silent_ones_closed
from state_service.errors import StorageError
from state_service.logs import configure_logging
from state_service.serving import Runner
from state_service.settings import Settings, SettingsError, load_settings

log = structlog.get_logger()

_SHUTDOWN_TIMEOUT_SECONDS = 5.0  # for requests in flight; the last snapshot comes after them


class _ListenError(Exception):
    """The address cannot be had; the message says why."""


def main() -> None:
    """Run the command line."""
    os.umask(0o077)  # user ids and scores: what is created here is for this account alone
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(run_command(sys.argv[1:]))
    try:
        settings = load_settings(sys.argv[1:], os.environ, COMMANDS)
        configure_logging(settings.log_level)
        asyncio.run(_serve(settings))
    except (SettingsError, StorageError, _ListenError, OSError) as error:
        sys.exit(f"error: {error}")  # the last with the name of the file that it is about


async def _serve(settings: Settings) -> None:
    _ignore_signals()  # already now: to open a large database takes a while
    app = await create_app(settings)
    _reload_on_hangup(app[GUARD])
    runner = Runner(
        app,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        shutdown_timeout=_SHUTDOWN_TIMEOUT_SECONDS,
    )
    await runner.setup()
    assert runner.server is not None
    stop = _stop_signal()  # before anybody is told that it listens
    gc.collect()
    gc.freeze()  # what is there by now stays: looking at it again would stall the event loop, 30 ms
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            raise _ListenError(f"cannot listen: {error.strerror} (settings: host, port)") from error
        for address in runner.addresses:
            host, port = address[:2]  # two more follow for IPv6
            url_host = f"[{host}]" if ":" in host else host
            print(f"state service listening on http://{url_host}:{port}", flush=True)
        async with silent_ones_closed(runner.server, app[HEARD], settings.body_timeout_seconds):
            await _first_done(stop, app[BACKGROUND])
            # Drain while still listening: whoever asks learns that we stop.
            app[SERVICE].stop()
            await asyncio.wait({app[BACKGROUND]})
    finally:
        await runner.cleanup()


async def _first_done(*tasks: asyncio.Task[None]) -> None:
    """Wait for one task and raise what it raised: half a service is worse than none."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def _ignore_signals() -> None:
    """Ignore, and say so, what would end the process without a word."""

    def ignore(number: signal.Signals) -> None:
        log.warning("signal ignored", signal=number.name)

    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        asyncio.get_running_loop().add_signal_handler(number, ignore, number)


def _reload_on_hangup(guard: Guard) -> None:
    """Read tokens anew on SIGHUP."""

    def reload() -> None:
        try:
            guard.reload()
        except SettingsError as error:
            refused = {"signal": "SIGHUP", "error": str(error)}  # nobody wants its traceback
            log.error("tokens not read anew, those in force stay", **refused)  # noqa: TRY400
        else:
            log.warning("tokens read anew; other settings need a restart", signal="SIGHUP")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _stop_signal() -> asyncio.Task[None]:
    """Return a task that ends with SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def wait() -> None:
        await stop.wait()

    return asyncio.create_task(wait())


if __name__ == "__main__":
    main()
